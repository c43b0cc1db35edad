package fetcher

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"starling/agent/archive"
	"starling/agent/nolink"
)

// orderMax bounds the orders, in bytes: thousands of URIs.
const orderMax = 16 << 20

// Main is the whole of "starling fetch": a child of an agent, not to be called by people. It returns the exit code.
func Main(args []string) int {
	if len(args) > 0 {
		fmt.Fprintln(os.Stderr, "fetch: this is a part of the agent and takes its orders from it")
		return 2
	}
	// The agent may be protected from the OOM killer; this is not the agent.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("0"), 0)
	in := bufio.NewReaderSize(io.LimitReader(os.Stdin, orderMax), 64<<10)
	text, err := in.ReadBytes('\n')
	var j job
	if err == nil {
		err = json.Unmarshal(text, &j)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "fetch: cannot read the orders: %v\n", err)
		return 2
	}
	go endWithAgent()
	a, err := j.do(context.Background())
	if err != nil {
		a.Error, a.TooLarge = err.Error(), errors.Is(err, errTooLarge)
	}
	if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
		return 1
	}
	return 0
}

// endWithAgent waits for the end of the input, which is the end of whoever wants what is fetched.
func endWithAgent() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = syscall.Kill(0, syscall.SIGKILL) // the whole group, which is ours alone
	os.Exit(1)
}

// worker is a child at work.
type worker struct {
	job    job
	client client
	// root is the sandbox, nil where there is none; log its stderr, nil where there is none.
	root *os.Root
	log  *os.File
}

func (j job) do(ctx context.Context) (answer, error) {
	w := &worker{job: j, client: client{stall: j.Stall, allow: j.Allow, hadoop: j.Hadoop}}
	// What is needed of the machine comes first: afterwards it may be out of reach.
	roots, err := x509.SystemCertPool()
	if err != nil {
		return answer{}, fmt.Errorf("cannot read the certificates of this machine: %w", err)
	}
	w.client.roots = roots
	if j.Sandbox != "" {
		if w.root, err = nolink.OpenRoot(j.Sandbox); err != nil {
			return answer{}, fmt.Errorf("cannot fetch into the sandbox: %w", plain(err))
		}
		defer w.root.Close()
		w.openLog()
	}
	if err := confine(j); err != nil {
		return answer{}, fmt.Errorf("cannot fetch: cannot confine the child that fetches: %w", err)
	}
	if err := j.As.become(); err != nil {
		return answer{}, fmt.Errorf("cannot fetch as user %d: %w", j.As.UID, err)
	}
	var a answer
	for _, it := range j.Items {
		mode, err := w.item(ctx, it)
		if err != nil {
			err = fmt.Errorf("cannot fetch %q: %w", Redact(it.URI), err)
			w.say("%v", err)
			return answer{}, err
		}
		a.Mode = uint32(mode.Perm())
	}
	return a, nil
}

// openLog opens the file that lines go to, while it may be opened: it is the user's all the same.
func (w *worker) openLog() {
	f, info, err := nolink.Open(w.root, "stderr", os.O_WRONLY|os.O_APPEND)
	if err != nil || f == nil {
		return // whatever has become of it: what went wrong is told by the answer too
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode().IsRegular() && st.Nlink == 1 {
		w.log = f
	} else {
		f.Close()
	}
}

func (w *worker) say(format string, args ...any) {
	if w.log != nil {
		line := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " ")
		_, _ = fmt.Fprintf(w.log, "%s %s\n", time.Now().UTC().Format("2006-01-02T15:04:05Z"), line)
	}
}

// item does one URI and returns the mode of the file where it comes from.
func (w *worker) item(ctx context.Context, it item) (fs.FileMode, error) {
	if it.Fill {
		s, err := parse(it.URI)
		if err != nil {
			return 0, err
		}
		_, mode, err := w.client.fetch(ctx, s, os.NewFile(uintptr(it.FD), "cache"), w.job.MaxBytes)
		return mode, err
	}
	unpack := it.Extract && archive.Recognised(path.Base(it.Target))
	if it.FD != 0 {
		content := os.NewFile(uintptr(it.FD), "cache")
		if unpack {
			// From the cache only the contents come into the sandbox.
			return 0, w.extract(ctx, it, content)
		}
		return 0, w.place(it, func(to *os.File) (int64, fs.FileMode, error) {
			info, err := content.Stat()
			if err != nil {
				return 0, 0, err
			}
			n, err := io.Copy(to, content)
			return n, info.Mode().Perm(), err
		})
	}
	s, err := parse(it.URI)
	if err != nil {
		return 0, err
	}
	err = w.place(it, func(to *os.File) (int64, fs.FileMode, error) { return w.client.fetch(ctx, s, to, w.job.MaxBytes) })
	if err != nil || !unpack {
		return 0, err
	}
	content, err := w.root.Open(it.Target)
	if err != nil {
		return 0, plain(err)
	}
	defer content.Close()
	return 0, w.extract(ctx, it, content)
}

// place writes a file of the sandbox. It gets its name when it is whole.
func (w *worker) place(it item, write func(*os.File) (int64, fs.FileMode, error)) (err error) {
	dir, base := path.Split(filepath.ToSlash(it.Target))
	if dir != "" {
		if err := w.root.MkdirAll(path.Clean(dir), 0o755); err != nil {
			return fmt.Errorf("cannot make the folder %q: %w", dir, plain(err))
		}
	}
	temp := dir + ".fetching-" + base[:min(len(base), 200)]
	if err := w.root.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot write to the sandbox: %w", plain(err))
	}
	f, err := w.root.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("cannot write to the sandbox: %w", plain(err))
	}
	defer func() {
		if err != nil {
			_ = w.root.Remove(temp)
		}
	}()
	n, mode, err := write(f)
	if it.Executable {
		mode = 0o755
	}
	if err == nil {
		err = f.Chmod(mode.Perm())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return plain(err)
	}
	if err := w.root.Rename(temp, it.Target); err != nil {
		return fmt.Errorf("cannot write %q in the sandbox: %w", it.Target, plain(err))
	}
	w.say("fetched %q to %q: %d bytes", Redact(it.URI), it.Target, n)
	return nil
}

// extract unpacks into the sandbox; what is merely compressed stays beside where it came to.
func (w *worker) extract(ctx context.Context, it item, content *os.File) error {
	into, name := w.root, path.Base(it.Target)
	if dir := path.Dir(it.Target); dir != "." && single(name) {
		if err := w.root.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("cannot make the folder %q: %w", dir, plain(err))
		}
		sub, err := nolink.Below(w.root, dir)
		if err != nil {
			return fmt.Errorf("cannot open the folder %q: %w", dir, plain(err))
		}
		defer sub.Close()
		into = sub
	}
	stats, err := archive.Extract(ctx, content, name, into, archive.Options{})
	if err != nil {
		return fmt.Errorf("cannot unpack %q: %w", name, err)
	}
	w.say("unpacked %q: %d entries, %d bytes", it.Target, stats.Entries, stats.Bytes)
	return nil
}

// single tells whether a name is that of one compressed file.
func single(name string) bool {
	return strings.HasSuffix(name, ".gz") && !strings.HasSuffix(name, ".tar.gz")
}
