package api

import (
	"context"
	"runtime/debug"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"
	"google.golang.org/protobuf/proto"

	"starling/master"
	"starling/master/mesos"
	operator "starling/master/mesos/operator/master"
)

// build is what the binary knows of the source that it was built from. Times are those of the commit: there is no other
// in a build that can be repeated.
var build = sync.OnceValue(func() *mesos.VersionInfo {
	b := &mesos.VersionInfo{
		Version: proto.String(master.MesosVersion), BuildDate: proto.String(""), BuildTime: proto.Float64(0), BuildUser: proto.String(""),
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.GitSha = proto.String(s.Value)
		case "vcs.time":
			if t, err := time.Parse(time.RFC3339, s.Value); err == nil {
				b.BuildDate, b.BuildTime = proto.String(t.UTC().Format(time.DateTime)), proto.Float64(seconds(t))
			}
		}
	}
	return b
})

// writeBuild writes the members that /version and /state begin with.
func writeBuild(w *jsonWriter) {
	b := build()
	w.string("version", b.GetVersion())
	w.string("build_date", b.GetBuildDate())
	w.float("build_time", b.GetBuildTime())
	w.string("build_user", b.GetBuildUser())
}

// writeSource says what it was built from. Tools branch on the version of Mesos; ours stands beside it.
func writeSource(w *jsonWriter, v *master.View) {
	if sha := build().GetGitSha(); sha != "" {
		w.string("git_sha", sha)
	}
	w.string("starling_version", v.Software)
}

func (a *api) version(c *fiber.Ctx) error {
	return a.show(c, "/version", func(w *jsonWriter, v *master.View) {
		writeBuild(w)
		writeSource(w, v)
	})
}

func (a *api) getVersion(ctx context.Context, _ *operator.Call) (*operator.Response, error) {
	v, err := a.master.View(ctx)
	if err != nil {
		return nil, err
	}
	info := proto.CloneOf(build())
	info.GitTag = proto.String(v.Software)
	return &operator.Response{GetVersion: &operator.Response_GetVersion{VersionInfo: info}}, nil
}
