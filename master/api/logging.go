package api

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	operator "starling/master/mesos/operator/master"
)

func (a *api) getLoggingLevel(context.Context, *operator.Call) (*operator.Response, error) {
	return &operator.Response{GetLoggingLevel: &operator.Response_GetLoggingLevel{Level: proto.Uint32(a.verbosity.Get())}}, nil
}

func (a *api) setLoggingLevel(_ context.Context, call *operator.Call, _ string) error {
	s := call.GetSetLoggingLevel()
	return a.verbosity.Set(s.GetLevel(), time.Duration(s.GetDuration().GetNanoseconds()))
}
