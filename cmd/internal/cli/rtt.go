package cli

import (
	"context"
	"net/url"
	"strconv"

	"starling/gossip/api"
)

func rtt(ctx context.Context, c *call) error {
	query := url.Values{"b": {c.args[len(c.args)-1]}}
	if len(c.args) == 2 {
		query.Set("a", c.args[0])
	}
	var answer api.RTT
	body, err := c.client.get(ctx, api.PathRTT+"?"+query.Encode(), &answer)
	if err != nil {
		return err
	}
	if c.print.json {
		return c.print.raw(body)
	}
	return c.print.text(milliseconds(answer.Seconds))
}

// milliseconds writes a number of seconds so that small ones keep three digits: 12.3 ms, 0.123 ms.
func milliseconds(seconds float64) string {
	decimals := 1
	if seconds < 0.001 {
		decimals = 3
	}
	return strconv.FormatFloat(seconds*1000, 'f', decimals, 64) + " ms"
}
