package api

import (
	"context"
	"errors"
	"io"

	"github.com/gofiber/fiber/v2"
	"google.golang.org/protobuf/proto"

	"starling/master/mesos/codec"
	operator "starling/master/mesos/operator/master"
	"starling/master/mesos/server"
)

// watch serves SUBSCRIBE of operators: a snapshot of the state, and then what changes. Spec: mesos-operator-api.md A.4.
func (a *api) watch(c *fiber.Ctx, cd codec.Codec) error {
	ctx, cancel := a.context(c)
	defer cancel()
	stream, err := a.master.SubscribeOperator(ctx)
	if err != nil {
		return a.fail(c, err)
	}
	err = server.Stream(c, map[string]string{fiber.HeaderContentType: cd.ContentType()},
		func(ctx context.Context, w *server.StreamWriter) error {
			defer stream.Close()
			// Made here and not by the loop: it may be long.
			if err := w.WriteMessage(cd, &operator.Event{
				Type: operator.Event_SUBSCRIBED.Enum(),
				Subscribed: &operator.Event_Subscribed{
					GetState: stateOf(stream.Snapshot), HeartbeatIntervalSeconds: proto.Float64(stream.Heartbeat.Seconds()),
				},
			}); err != nil {
				return err
			}
			stream.Snapshot = nil // the stream lives long
			for {
				event, err := stream.Next(ctx)
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				record, err := event.Encode(cd)
				if err != nil {
					return err
				}
				if err := w.WriteRecord(record); err != nil {
					return err
				}
			}
		})
	if err != nil {
		stream.Close()
	}
	return err
}
