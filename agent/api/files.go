package api

import (
	"errors"
	"io/fs"
	"maps"
	"os/user"
	"path"
	"strconv"
	"strings"
	"syscall"

	"github.com/gofiber/fiber/v2"

	"starling/agent"
	"starling/agent/sandbox"
	"starling/master/mesos/server"
)

const (
	// readMax is the most that one read answers, in bytes.
	readMax = server.ReadMax
	// listMax bounds one listing.
	listMax = 10000
)

// layout knows the sandboxes, with the volumes of those that are in use.
func (s *Server) layout(st *agent.State) sandbox.Layout {
	volumes := map[string]string{}
	for _, f := range st.Frameworks {
		for _, e := range f.Executors {
			maps.Copy(volumes, e.Volumes)
		}
	}
	return sandbox.New(s.cfg.WorkDir, s.cfg.ID).WithVolumes(volumes).WithFiles(s.virtualFiles())
}

// virtualFiles are the files that are shown beside sandboxes.
func (s *Server) virtualFiles() map[string]string {
	if s.cfg.LogFile == "" {
		return nil
	}
	return map[string]string{"/slave/log": s.cfg.LogFile}
}

// fileError is the answer for what went wrong with a path.
func fileError(name string, err error, directory string) error {
	switch {
	case errors.Is(err, sandbox.ErrNotFound):
		return server.Errorf(fiber.StatusNotFound, "404 Not Found.")
	case errors.Is(err, sandbox.ErrIsDir):
		return server.Errorf(fiber.StatusBadRequest, "%s", directory)
	case errors.Is(err, sandbox.ErrInaccessible), errors.Is(err, sandbox.ErrNoFile):
		return server.Errorf(fiber.StatusBadRequest, "'%s' is inaccessible", name)
	}
	return err
}

type entryView struct {
	Path  string `json:"path"`
	Links uint64 `json:"nlink"`
	Size  int64  `json:"size"`
	Time  number `json:"mtime"`
	Mode  string `json:"mode"`
	UID   string `json:"uid"`
	GID   string `json:"gid"`
}

func (s *Server) browse(c *fiber.Ctx, st *agent.State) error {
	name, err := server.FilePath(c)
	if err != nil {
		return err
	}
	entries, err := s.layout(st).List(name, listMax)
	if err != nil {
		return fileError(name, err, "")
	}
	owners := owners{}
	out := make([]entryView, 0, len(entries))
	for _, e := range entries {
		v := entryView{
			Path: path.Join(name, e.Name), Links: 1, Size: e.Info.Size(), Time: timestamp(e.Info.ModTime()), Mode: modeText(e.Info.Mode()),
		}
		if st, ok := e.Info.Sys().(*syscall.Stat_t); ok {
			v.Links, v.UID, v.GID = uint64(st.Nlink), owners.user(st.Uid), owners.group(st.Gid)
		}
		out = append(out, v)
	}
	return write(c, out)
}

// modeText is a mode as ls shows it.
func modeText(m fs.FileMode) string {
	kind := "-"
	switch {
	case m.IsDir():
		kind = "d"
	case m&fs.ModeSymlink != 0:
		kind = "l"
	case m&fs.ModeNamedPipe != 0:
		kind = "p"
	case m&fs.ModeSocket != 0:
		kind = "s"
	case m&fs.ModeCharDevice != 0:
		kind = "c"
	case m&fs.ModeDevice != 0:
		kind = "b"
	}
	return kind + m.Perm().String()[1:]
}

// owners finds the names of users and groups, each once a request.
type owners map[string]string

func (o owners) user(id uint32) string {
	return o.name("u", id, func(id string) (string, error) {
		u, err := user.LookupId(id)
		if err != nil {
			return "", err
		}
		return u.Username, nil
	})
}

func (o owners) group(id uint32) string {
	return o.name("g", id, func(id string) (string, error) {
		g, err := user.LookupGroupId(id)
		if err != nil {
			return "", err
		}
		return g.Name, nil
	})
}

// name falls back to the number, which is what there is without a name.
func (o owners) name(kind string, id uint32, look func(string) (string, error)) string {
	number := strconv.FormatUint(uint64(id), 10)
	if known, ok := o[kind+number]; ok {
		return known
	}
	name, err := look(number)
	if err != nil {
		name = number
	}
	o[kind+number] = name
	return name
}

type readView struct {
	Data   string `json:"data"`
	Offset int64  `json:"offset"`
}

func (s *Server) read(c *fiber.Ctx, st *agent.State) error {
	name, err := server.FilePath(c)
	if err != nil {
		return err
	}
	offset, length, err := server.FilePart(c)
	if err != nil {
		return err
	}
	f, info, err := s.layout(st).Open(name)
	if err != nil {
		return fileError(name, err, "Cannot read a directory.")
	}
	defer f.Close()
	if offset == -1 {
		return write(c, readView{Offset: info.Size()})
	}
	data := server.ReadPart(f, info.Size(), offset, length)
	// The answer is text: what is no UTF-8 is replaced.
	return write(c, readView{Data: strings.ToValidUTF8(string(data), "\uFFFD"), Offset: offset})
}

func (s *Server) download(c *fiber.Ctx, st *agent.State) error {
	name, err := server.FilePath(c)
	if err != nil {
		return err
	}
	f, info, err := s.layout(st).Open(name)
	if err != nil {
		return fileError(name, err, "Cannot download a directory.")
	}
	return server.Download(c, f, info, name)
}

// debug tells what the virtual paths stand for.
func (s *Server) debug(c *fiber.Ctx, st *agent.State) error {
	out := map[string]string{}
	maps.Copy(out, s.virtualFiles())
	for _, frameworks := range [][]agent.FrameworkState{st.Frameworks, st.Completed} {
		for _, f := range frameworks {
			for _, e := range append(append([]agent.ExecutorState{}, f.Executors...), f.Completed...) {
				out[e.Directory] = e.Directory
				maps.Copy(out, e.Volumes)
				out[path.Join("/frameworks", f.Info.GetId().GetValue(), "executors", e.ID, "runs", "latest")] = e.Directory
			}
		}
	}
	return write(c, out)
}
