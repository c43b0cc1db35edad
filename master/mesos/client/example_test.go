package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"

	"starling/master/mesos"
	"starling/master/mesos/client"
	"starling/master/mesos/scheduler"
)

// A framework that subscribes, declines the first offers it gets, and leaves.
func Example() {
	offer := &mesos.Offer{
		Id: &mesos.OfferID{Value: new("O1")}, FrameworkId: &mesos.FrameworkID{Value: new("F")},
		AgentId: &mesos.AgentID{Value: new("S1")}, Hostname: new("edge1"),
	}
	m := &master{events: []*scheduler.Event{subscribed(15), {
		Type: scheduler.Event_OFFERS.Enum(), Offers: &scheduler.Event_Offers{Offers: []*mesos.Offer{offer}},
	}}}
	m.Server = httptest.NewServer(m) // stands for a real master
	defer m.Server.Close()

	ctx := context.Background()
	c := client.New(client.Config{Masters: []string{strings.TrimPrefix(m.URL, "http://")}})
	defer c.Close()
	stream, err := c.Subscribe(ctx, &scheduler.Call{
		Type: scheduler.Call_SUBSCRIBE.Enum(),
		Subscribe: &scheduler.Call_Subscribe{
			FrameworkInfo: &mesos.FrameworkInfo{User: new("svc"), Name: new("demo")},
		},
	})
	if refused, ok := errors.AsType[*client.StatusError](err); ok {
		fmt.Println("refused:", refused.Text)
		return
	} else if err != nil {
		fmt.Println(err)
		return
	}
	defer stream.Close()

	var id *mesos.FrameworkID
	for {
		event, err := stream.Next()
		if err != nil {
			fmt.Println(err)
			return
		}
		switch event.GetType() {
		case scheduler.Event_SUBSCRIBED:
			id = event.GetSubscribed().GetFrameworkId()
			fmt.Println("subscribed as", id.GetValue())
		case scheduler.Event_OFFERS:
			var ids []*mesos.OfferID
			for _, o := range event.GetOffers().GetOffers() {
				fmt.Println("offer from", o.GetHostname())
				ids = append(ids, o.GetId())
			}
			err := stream.Call(ctx, &scheduler.Call{
				FrameworkId: id, Type: scheduler.Call_DECLINE.Enum(),
				Decline: &scheduler.Call_Decline{OfferIds: ids},
			})
			fmt.Println("declined:", err == nil)
			return
		}
	}
	// Output:
	// subscribed as F
	// offer from edge1
	// declined: true
}
