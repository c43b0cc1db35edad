package server

import (
	"encoding/json"

	"github.com/gofiber/fiber/v2"

	"starling/master/mesos/host"
)

// SystemStats is the endpoint /system/stats: the machine's numbers, by the names that it has had since before there were
// metrics.
func SystemStats(c *fiber.Ctx) error {
	values := host.Metrics()
	body, err := json.Marshal(map[string]float64{
		"avg_load_1min": values["system/load_1min"], "avg_load_5min": values["system/load_5min"],
		"avg_load_15min": values["system/load_15min"], "cpus_total": values["system/cpus_total"],
		"mem_total_bytes": values["system/mem_total_bytes"], "mem_free_bytes": values["system/mem_free_bytes"],
	})
	if err != nil {
		return err
	}
	return WriteJSON(c, body)
}
