package node

import (
	"fmt"
	"os"
	"path/filepath"

	"starling/agent/fetcher"
)

// fetcher makes what fetches for the tasks of an agent.
func (r *role) fetcher(f *fetcherFlags, id string) (*fetcher.Fetcher, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("cannot find this program's file, which fetches too: %w", err)
	}
	c := fetcher.DefaultConfig()
	c.Command, c.AgentID, c.Log = []string{self, "fetch"}, id, r.log
	if c.CacheDir = string(f.cacheDir); c.CacheDir == "" {
		c.CacheDir = filepath.Join(r.place.dir, "fetch")
	}
	c.CacheSize, c.MaxBytes, c.StallTimeout, c.Timeout = int64(f.cacheSize), int64(f.maxSize), f.stall.Std(), f.timeout.Std()
	c.FrameworksHome, c.HadoopHome, c.AllowAddresses = string(f.frameworksHome), string(f.hadoopHome), f.allowed
	made, err := fetcher.New(c)
	if err != nil {
		return nil, err
	}
	r.closers = append(r.closers, func() { made.Close() })
	return made, nil
}
