package record_test

import (
	"context"
	"fmt"
	"time"

	"starling/gossip/record"
)

// Two nodes: one writes, the other keeps a copy and follows it.
func Example() {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	writer, reader := record.NewMap("n1", 1), record.NewMap("n2", 1)
	feed := reader.Feed()

	writer.Set(now, record.Assignment{Key: "task/a", Value: []byte("running")})
	if _, err := reader.Apply(now, writer.Delta("n1", 0)); err != nil {
		fmt.Println(err)
		return
	}
	for key, value := range reader.Snapshot("n1").All() {
		fmt.Printf("%s is %s\n", key, value)
	}

	version := reader.Snapshot("n1").Version()
	writer.Set(now, record.Assignment{Key: "task/a"}) // deleted
	if _, err := reader.Apply(now, writer.Delta("n1", version)); err != nil {
		fmt.Println(err)
		return
	}
	changes, err := feed.Next(context.Background())
	fmt.Println(len(changes), changes[0].Node, changes[0].Snapshot.Len(), err)
	// Output:
	// task/a is running
	// 1 n1 0 <nil>
}
