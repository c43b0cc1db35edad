package api

import (
	"bytes"
	"context"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/adaptor"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"starling/marathon"
	"starling/marathon/event"
	"starling/marathon/scheduler"
	"starling/master/mesos/server"
)

// heartbeat is the time between the empty lines that keep an event stream alive.
const heartbeat = 10 * time.Second

func (a *api) toUI(c *fiber.Ctx) error {
	c.Set(fiber.HeaderLocation, "/ui/")
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

// numbers is the form of /metrics, which other kinds of numbers have a place in as well.
type numbers struct {
	Version    string              `json:"version"`
	Counters   map[string]count    `json:"counters"`
	Gauges     map[string]value    `json:"gauges"`
	Histograms map[string]struct{} `json:"histograms"`
	Meters     map[string]struct{} `json:"meters"`
	Timers     map[string]struct{} `json:"timers"`
}

type count struct {
	Count float64 `json:"count"`
}

type value struct {
	Value float64 `json:"value"`
}

func (a *api) metrics(c *fiber.Ctx) error {
	n := numbers{
		Version: "4.0.0", Counters: map[string]count{}, Gauges: map[string]value{},
		Histograms: map[string]struct{}{}, Meters: map[string]struct{}{}, Timers: map[string]struct{}{},
	}
	for _, metric := range a.m.Metrics() {
		if metric.Counter {
			n.Counters[metric.Name] = count{metric.Value}
		} else {
			n.Gauges[metric.Name] = value{metric.Value}
		}
	}
	return writeJSON(c, fiber.StatusOK, n)
}

func (a *api) prometheus(c *fiber.Ctx) error {
	return adaptor.HTTPHandler(promhttp.HandlerFor(a.gatherer, promhttp.HandlerOpts{}))(c)
}

func (a *api) getPlugins(c *fiber.Ctx) error {
	return writeJSON(c, fiber.StatusOK, map[string]any{"plugins": []struct{}{}})
}

func (a *api) getLeader(c *fiber.Ctx) error {
	leader := a.m.Leader()
	if leader == "" {
		return refusal(fiber.StatusNotFound, "There is no leader")
	}
	return writeJSON(c, fiber.StatusOK, map[string]string{"leader": leader})
}

func (a *api) deleteLeader(c *fiber.Ctx) error {
	ctx, cancel := a.context(c)
	defer cancel()
	if err := a.m.Abdicate(ctx); err != nil {
		return err
	}
	return writeJSON(c, fiber.StatusOK, message{"Leadership abdicated"})
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
	features := []string{}
	if cfg.TaskKilling {
		features = append(features, "task_killing")
	}
	if cfg.GPUs {
		features = append(features, "gpu_resources")
	}
	return writeJSON(c, fiber.StatusOK, map[string]any{
		"name": "marathon", "version": marathon.APIVersion, "buildref": "unknown", "project_version": cfg.Version,
		"elected": a.m.Loaded(), "leader": known(a.m.Leader()), "frameworkId": known(framework),
		"marathon_config": map[string]any{
			"master": a.m.MasterFlag(), "mesos_leader_ui_url": known(a.m.MesosUI()), "framework_name": cfg.FrameworkName,
			"ha": false, "hostname": cfg.Hostname, "checkpoint": cfg.Checkpoint, "features": features,
			"failover_timeout": int64(cfg.FailoverTimeout.Seconds()), "mesos_role": cfg.Role, "mesos_user": cfg.User,
			"local_port_min": cfg.App.ServicePortMin, "local_port_max": cfg.App.ServicePortMax,
			"default_network_name": known(cfg.App.DefaultNetworkName), "mesos_bridge_name": cfg.App.MesosBridgeName,
			"env_vars_prefix": known(sch.Task.EnvVarsPrefix), "executor": "//cmd",
			"decline_offer_duration": ms(sch.DeclineDuration), "launch_token": sch.LaunchTokens,
			"launch_token_refresh_interval": ms(sch.LaunchTokenRefresh), "max_instances_per_offer": sch.MaxInstancesPerOffer,
			"min_revive_offers_interval": ms(sch.MinReviveInterval), "reconciliation_interval": ms(sch.ReconcileInterval),
			"reconciliation_initial_delay": 0, "scale_apps_initial_delay": ms(sch.ScaleInitialDelay),
			"scale_apps_interval": ms(sch.ScaleInterval), "task_launch_confirm_timeout": ms(sch.LaunchConfirmTimeout),
			"task_launch_timeout": ms(sch.LaunchTimeout), "task_lost_expunge_initial_delay": ms(sch.ExpungeInitialDelay),
			"maintenance_mode": !sch.NoMaintenance, "new_group_enforce_role": enforce(cfg.App.NewGroupEnforceRole),
			"webui_url": known(cfg.WebUIURL), "access_control_allow_origin": nil,
		},
		"zookeeper_config": map[string]any{"zk": "", "zk_max_versions": cfg.KeepVersions},
		"http_config":      map[string]any{"http_port": cfg.HTTPPort, "https_port": nil},
	})
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
	if !a.m.Loaded() {
		return marathon.ErrNotReady
	}
	remote := c.Context().RemoteIP().String()
	bus := a.m.Events()
	sub := bus.Subscribe(a.m.Config().EventQueue, queryAll(c, "event_type")...)
	header := map[string]string{fiber.HeaderContentType: "text/event-stream", "X-Marathon-Leader": a.leader}
	for _, h := range fixedHeaders {
		header[h[0]] = h[1]
	}
	err := server.Stream(c, header, func(ctx context.Context, w *server.StreamWriter) error {
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
func stream(ctx context.Context, sub *event.Subscription, w *server.StreamWriter) error {
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
		case ctx.Err() == nil && wait.Err() != nil:
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
