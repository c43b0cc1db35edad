package api

import (
	"io/fs"
	"path"
	"syscall"

	"google.golang.org/protobuf/proto"

	"starling/agent"
	"starling/master/mesos"
)

// listFiles lists a folder, or the one file that is named.
func (s *Server) listFiles(st *agent.State, name string) ([]*mesos.FileInfo, error) {
	entries, err := s.layout(st).List(name, listMax)
	if err != nil {
		return nil, fileError(name, err, "Cannot list a file.")
	}
	names := owners{}
	out := make([]*mesos.FileInfo, 0, len(entries))
	for _, e := range entries {
		out = append(out, fileInfo(path.Join(name, e.Name), e.Info, names))
	}
	return out, nil
}

func fileInfo(name string, info fs.FileInfo, names owners) *mesos.FileInfo {
	out := &mesos.FileInfo{
		Path: proto.String(name), Size: proto.Uint64(uint64(max(0, info.Size()))), Mtime: &mesos.TimeInfo{Nanoseconds: proto.Int64(info.ModTime().UnixNano())},
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		out.Mode, out.Nlink = proto.Uint32(uint32(sys.Mode)), proto.Int32(int32(sys.Nlink))
		out.Uid, out.Gid = proto.String(names.user(sys.Uid)), proto.String(names.group(sys.Gid))
	}
	return out
}

// readFile reads a part of a file, and tells its size; a negative length reads as much as one answer may have.
func (s *Server) readFile(st *agent.State, name string, offset, length int64) (data []byte, size int64, err error) {
	f, info, err := s.layout(st).Open(name)
	if err != nil {
		return nil, 0, fileError(name, err, "Cannot read a directory.")
	}
	defer f.Close()
	if length < 0 || length > readMax {
		length = readMax
	}
	data = make([]byte, max(0, min(length, info.Size()-offset)))
	// What was cut off meanwhile is not there, as beyond any end.
	n, _ := f.ReadAt(data, offset)
	return data[:n], info.Size(), nil
}
