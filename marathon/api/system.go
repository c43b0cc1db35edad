package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"starling/marathon"
	"starling/marathon/event"
	"starling/marathon/scheduler"
	"starling/master/mesos/server"
	"starling/master/store"
)

// heartbeat is the time between the empty lines that keep an event stream alive.
const heartbeat = 10 * time.Second

// toUI leads to /ui/ and, as long as nothing is mounted there, from there to the description of the API.
func (a *api) toUI(c *fiber.Ctx) error {
	if path, _, _ := strings.Cut(server.OriginalURI(c), "?"); strings.HasSuffix(path, "/ui/") {
		c.Set(fiber.HeaderLocation, "/api-console/index.html")
	} else {
		c.Set(fiber.HeaderLocation, "/ui/")
	}
	c.Status(fiber.StatusFound)
	c.Context().Response.ResetBody()
	return nil
}

func (a *api) ping(c *fiber.Ctx) error {
	switch c.Accepts(fiber.MIMETextPlain, fiber.MIMETextHTML, fiber.MIMEApplicationJSON) {
	case fiber.MIMETextPlain:
		c.Set(fiber.HeaderContentType, fiber.MIMETextPlain)
		return c.SendString("pong")
	case fiber.MIMETextHTML:
		c.Set(fiber.HeaderContentType, fiber.MIMETextHTML)
		return c.SendString("pong")
	case fiber.MIMEApplicationJSON:
		c.Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
		return c.SendString(`"pong"`)
	default:
		return c.SendStatus(fiber.StatusNoContent)
	}
}

func (a *api) health(c *fiber.Ctx) error {
	if err := a.m.Health(); err != nil {
		return err
	}
	c.Status(fiber.StatusOK)
	c.Context().Response.ResetBody()
	return nil
}

func (a *api) getPlugins(c *fiber.Ctx) error {
	return writeJSON(c, fiber.StatusOK, map[string]any{"plugins": []struct{}{}})
}

func (a *api) getInfo(c *fiber.Ctx) error {
	cfg := a.m.Config()
	sch := cfg.Scheduler.Effective()
	framework := ""
	if err := a.m.Read(func(v scheduler.View, _ time.Time) { framework = v.FrameworkID() }); err != nil {
		return err
	}
	known := func(text string) any {
		if text == "" {
			return nil
		}
		return text
	}
	ms := func(d time.Duration) int64 { return d.Milliseconds() }
	proxy := a.follow.proxy
	// No other names than Marathon's: marathon-python refuses any that it does not know.
	return writeJSON(c, fiber.StatusOK, map[string]any{
		"name": "marathon", "version": marathon.APIVersion, "buildref": "starling " + cfg.Version,
		"elected": a.m.Loaded(), "leader": known(a.m.Leader()), "frameworkId": known(framework),
		"marathon_config": map[string]any{
			"master": a.m.MasterFlag(), "mesos_leader_ui_url": known(a.m.MesosUI()), "framework_name": cfg.FrameworkName,
			"ha": cfg.Contender != nil, "hostname": cfg.Hostname, "checkpoint": cfg.Checkpoint, "features": cfg.Features(),
			"failover_timeout": int64(cfg.FailoverTimeout.Seconds()), "mesos_role": cfg.Role, "mesos_user": cfg.User,
			"local_port_min": cfg.App.ServicePortMin, "local_port_max": cfg.App.ServicePortMax,
			"default_network_name": known(cfg.App.DefaultNetworkName), "mesos_bridge_name": cfg.App.MesosBridgeName,
			"env_vars_prefix": known(sch.Task.EnvVarsPrefix), "executor": "//cmd",
			"decline_offer_duration": ms(sch.DeclineDuration), "launch_token": sch.LaunchTokens,
			"launch_token_refresh_interval": ms(sch.LaunchTokenRefresh), "max_instances_per_offer": sch.MaxInstancesPerOffer,
			"min_revive_offers_interval": ms(sch.MinReviveInterval), "reconciliation_interval": ms(sch.ReconcileInterval),
			"reconciliation_initial_delay": 0, "scale_apps_initial_delay": ms(sch.ScaleInitialDelay),
			"scale_apps_interval": ms(sch.ScaleInterval), "task_launch_confirm_timeout": ms(sch.LaunchConfirmTimeout),
			"task_launch_timeout": ms(sch.LaunchTimeout), "task_reservation_timeout": ms(sch.ReservationTimeout), "task_lost_expunge_initial_delay": ms(sch.ExpungeInitialDelay),
			"maintenance_mode": !sch.NoMaintenance, "new_group_enforce_role": enforce(cfg.App.NewGroupEnforceRole),
			"webui_url": known(cfg.WebUIURL), "access_control_allow_origin": a.origins(),
			"leader_proxy_connection_timeout_ms": ms(proxy.ConnectTimeout), "leader_proxy_read_timeout_ms": ms(proxy.ReadTimeout),
			"on_elected_prepare_timeout": ms(cfg.PrepareTimeout), "store_cache": true,
			// What there is no such thing of here.
			"mesos_heartbeat_interval": nil, "mesos_heartbeat_failure_threshold": nil, "offer_matching_timeout": nil,
			"task_lost_expunge_interval": nil,
		},
		"zookeeper_config": map[string]any{
			"zk": cfg.ZK, "zk_max_versions": cfg.KeepVersions, "zk_timeout": ms(cfg.StoreTimeout), "zk_session_timeout": msOrNil(cfg.ZKSession),
			"zk_max_node_size": store.MaxSize, "zk_compression": nil, "zk_compression_threshold": nil, "zk_connection_timeout": nil,
		},
		"http_config": map[string]any{"http_port": cfg.HTTPPort, "https_port": numberOrNil(cfg.HTTPSPort)},
	})
}

func msOrNil(d time.Duration) any {
	if d == 0 {
		return nil
	}
	return d.Milliseconds()
}

func numberOrNil(n int) any {
	if n == 0 {
		return nil
	}
	return n
}

// origins are those of CORS as they are shown, nil for none.
func (a *api) origins() any {
	if len(a.http.Origins) == 0 {
		return nil
	}
	return a.http.Origins
}

func enforce(on bool) string {
	if on {
		return "top"
	}
	return "off"
}

// getEvents answers with an endless stream of events.
func (a *api) getEvents(c *fiber.Ctx) error {
	if !bytes.Contains(c.Request().Header.Peek(fiber.HeaderAccept), []byte("text/event-stream")) {
		c.Set(fiber.HeaderAllow, fiber.MethodGet)
		return refusal(fiber.StatusMethodNotAllowed, "Expecting 'Accept' to allow 'text/event-stream'")
	}
	if c.Method() == fiber.MethodHead { // whose answer has no body, and so no stream
		c.Set(fiber.HeaderContentType, "text/event-stream")
		c.Status(fiber.StatusOK)
		c.Context().Response.ResetBody()
		return nil
	}
	remote := c.Context().RemoteIP().String()
	bus := a.m.Events()
	sub := bus.Subscribe(a.m.Config().EventQueue, queryAll(c, "event_type")...)
	if !a.m.Loaded() { // looked at behind the subscription, which the end of leading ends
		sub.Close()
		return marathon.ErrNotReady
	}
	header := map[string]string{fiber.HeaderContentType: "text/event-stream", headerLeader: a.leaderURL()}
	for _, h := range fixedHeaders {
		header[h[0]] = h[1]
	}
	if origin := c.GetRespHeader(fiber.HeaderAccessControlAllowOrigin); origin != "" {
		header[fiber.HeaderAccessControlAllowOrigin] = strings.Clone(origin)
	}
	err := server.Stream(c, header, func(ctx context.Context, to *server.StreamWriter) error {
		w := counted{to, a.m.Registry()}
		defer a.tell(event.StreamDetached{RemoteAddress: remote})
		defer sub.Close()
		if frame, err := event.Encode(a.m.Config().Now(), event.StreamAttached{RemoteAddress: remote}); err == nil {
			if sub.Wants(frame.Type) {
				if _, err := w.Write(appendFrame(nil, frame)); err != nil {
					return err
				}
			}
		}
		return stream(ctx, sub, w)
	})
	if err != nil {
		sub.Close()
	}
	return err
}

// tell publishes an event of the API's own.
func (a *api) tell(p event.Payload) {
	if frame, err := event.Encode(a.m.Config().Now(), p); err == nil { // it holds nothing but a text
		a.m.Events().Publish(frame)
	}
}

// stream writes events until the client leaves, or is too slow. An empty line now and then shows that the stream lives.
func stream(ctx context.Context, sub *event.Subscription, w io.Writer) error {
	var buf []byte
	for {
		wait, cancel := context.WithTimeout(ctx, heartbeat)
		frames, err := sub.Next(wait)
		cancel()
		buf = buf[:0]
		switch {
		case err == nil:
			for _, frame := range frames {
				buf = appendFrame(buf, frame)
			}
		case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
			buf = append(buf, "\r\n"...)
		default:
			return err
		}
		if _, err := w.Write(buf); err != nil {
			return err
		}
	}
}

func appendFrame(buf []byte, frame event.Frame) []byte {
	buf = append(buf, "event: "...)
	buf = append(buf, frame.Type...)
	buf = append(buf, "\r\ndata: "...)
	buf = append(buf, frame.Data...)
	return append(buf, "\r\n\r\n"...)
}
