package fetcher

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
)

// ftp downloads over FTP (RFC 959) in passive mode (RFC 2428), with TLS asked for as RFC 4217 says where the scheme is ftps.
// Only the control connection's peer is ever dialled for the data, whatever it says.
func (c *client) ftp(ctx context.Context, uri string, to io.Writer, limit int64) (int64, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return 0, errors.New("it is no valid URL")
	}
	if strings.ContainsAny(u.Path, "\r\n") {
		return 0, errors.New("its path contains the end of a line")
	}
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = "21"
	}
	dialer := &net.Dialer{Timeout: c.stall, Control: control(c.allow), Resolver: &net.Resolver{PreferGo: true}}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return 0, plain(err)
	}
	defer func() { _ = conn.Close() }()
	// What waits for the other side ends with ctx, which ends when nothing comes any more.
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	peer, _, err := net.SplitHostPort(conn.RemoteAddr().String())
	if err != nil {
		return 0, fmt.Errorf("cannot read the server's address: %w", err)
	}
	text := talk(conn)
	if _, _, err := text.ReadResponse(220); err != nil {
		return 0, said("connect", err)
	}
	secure := &tls.Config{ServerName: host, RootCAs: c.roots, ClientSessionCache: tls.NewLRUClientSessionCache(2)}
	if u.Scheme == "ftps" {
		if err := ask(text, 234, "AUTH TLS"); err != nil {
			return 0, said("secure the connection", err)
		}
		text = talk(tls.Client(conn, secure))
	}
	if err := login(text, u.User); err != nil {
		return 0, err
	}
	if u.Scheme == "ftps" {
		if err := errors.Join(ask(text, 200, "PBSZ 0"), ask(text, 200, "PROT P")); err != nil {
			return 0, said("secure the data", err)
		}
	}
	if err := ask(text, 200, "TYPE I"); err != nil {
		return 0, said("choose the binary mode", err)
	}
	dataPort, err := passive(text)
	if err != nil {
		return 0, err
	}
	var data net.Conn
	if data, err = dialer.DialContext(ctx, "tcp", net.JoinHostPort(peer, dataPort)); err != nil {
		return 0, plain(err)
	}
	defer func() { _ = data.Close() }()
	defer context.AfterFunc(ctx, func() { _ = data.Close() })()
	if err := ask(text, 1, "RETR %s", u.Path); err != nil {
		return 0, said("have the file", err)
	}
	if u.Scheme == "ftps" {
		data = tls.Client(data, secure)
	}
	n, err := copyAll(to, data, limit)
	if err != nil {
		return n, plain(err)
	}
	_ = data.Close()
	if _, _, err := text.ReadResponse(226); err != nil {
		return n, said("have the whole file", err)
	}
	_, _ = text.Cmd("QUIT")
	return n, nil
}

// talkMax is the most that a server may say on the control connection, in bytes.
const talkMax = 1 << 20

func talk(conn net.Conn) *textproto.Conn {
	return textproto.NewConn(struct {
		io.Reader
		io.Writer
		io.Closer
	}{io.LimitReader(conn, talkMax), conn, conn})
}

// ask sends a command and reads the answer, which has to begin with the digits of code.
func ask(text *textproto.Conn, code int, format string, args ...any) error {
	if _, err := text.Cmd(format, args...); err != nil {
		return err
	}
	_, _, err := text.ReadResponse(code)
	return err
}

func login(text *textproto.Conn, user *url.Userinfo) error {
	name, password := "anonymous", "starling@"
	if user != nil {
		name = user.Username()
		password, _ = user.Password()
	}
	if strings.ContainsAny(name+password, "\r\n") {
		return errors.New("its user contains the end of a line")
	}
	if _, err := text.Cmd("USER %s", name); err != nil {
		return said("log in", err)
	}
	code, message, err := text.ReadResponse(0)
	if err != nil {
		return said("log in", err)
	}
	switch code {
	case 230:
		return nil
	case 331:
		if err := ask(text, 230, "PASS %s", password); err != nil {
			return said("log in", err)
		}
		return nil
	}
	return said("log in", &textproto.Error{Code: code, Msg: message})
}

// passive asks where the data is to be had, in the newer way and then in the older.
func passive(text *textproto.Conn) (port string, err error) {
	if _, err := text.Cmd("EPSV"); err != nil {
		return "", said("choose the passive mode", err)
	}
	code, message, err := text.ReadResponse(0)
	if err != nil {
		return "", said("choose the passive mode", err)
	}
	if code == 229 {
		if _, rest, ok := strings.Cut(message, "(|||"); ok {
			if port, _, ok := strings.Cut(rest, "|)"); ok && valid(port) {
				return port, nil
			}
		}
		return "", fmt.Errorf("the server's answer %q names no port", message)
	}
	if _, err := text.Cmd("PASV"); err != nil {
		return "", said("choose the passive mode", err)
	}
	if _, message, err = text.ReadResponse(227); err != nil {
		return "", said("choose the passive mode", err)
	}
	begin, end := strings.IndexByte(message, '('), strings.LastIndexByte(message, ')')
	if begin >= 0 && end > begin {
		if parts := strings.Split(message[begin+1:end], ","); len(parts) == 6 {
			high, errHigh := strconv.ParseUint(strings.TrimSpace(parts[4]), 10, 8)
			low, errLow := strconv.ParseUint(strings.TrimSpace(parts[5]), 10, 8)
			if errHigh == nil && errLow == nil {
				return strconv.FormatUint(high<<8|low, 10), nil
			}
		}
	}
	return "", fmt.Errorf("the server's answer %q names no port", message)
}

func valid(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// said is the error of a step with the server's own words.
func said(step string, err error) error {
	if e, ok := errors.AsType[*textproto.Error](err); ok {
		return fmt.Errorf("cannot %s: the server answered \"%d %s\"", step, e.Code, strings.ToValidUTF8(e.Msg, "\uFFFD"))
	}
	return fmt.Errorf("cannot %s: %w", step, plain(err))
}
