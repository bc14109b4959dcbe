package client_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/veredus/veredus/proto/client"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// exampleNode stands for a node with 20 events; it ends with the process.
func exampleNode() (veredusv1.CampaignServiceClient, veredusv1.FeedbackServiceClient) {
	conn := newNode(20).serve(forever{})
	return veredusv1.NewCampaignServiceClient(conn), veredusv1.NewFeedbackServiceClient(conn)
}

// forever is a testing.TB that never cleans up.
type forever struct{ testing.TB }

func (forever) Cleanup(func())    {}
func (forever) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func ExampleUploader() {
	campaigns, _ := exampleNode() // veredusv1.NewCampaignServiceClient(conn) with a conn of client.Dial
	uploader := client.Uploader{
		Client:   campaigns,
		Delivery: "deliveries/spring",
		Rejected: func(r *veredusv1.RejectedRecipient) { fmt.Println("rejected: item", r.Index) },
	}
	totals, err := uploader.Upload(context.Background(), client.Slice([]*veredusv1.Recipient{
		{Address: "ada@example.com", Variables: []byte(`{"name": "Ada"}`), RecipientId: "crm-1"},
		{Address: "", RecipientId: "crm-2"},
		{Address: "alan@example.com", Variables: []byte(`{"name": "Alan"}`), RecipientId: "crm-3"},
	}))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("durable: %d, accepted %d, rejected %d\n", totals.Durable, totals.Accepted, totals.Rejected)
	// Output:
	// rejected: item 2
	// durable: 3, accepted 2, rejected 1
}

func ExampleFollower() {
	_, events := exampleNode()          // veredusv1.NewFeedbackServiceClient(conn) with a conn of client.Dial
	token := "12"                       // read from where the last run recorded it
	done := errors.New("seen them all") // a real follower goes on until its context ends
	follower := client.Follower{
		Client: events,
		Token:  token,
		Handle: func(_ context.Context, batch []*veredusv1.FeedbackEvent, _ string) error {
			for _, e := range batch {
				fmt.Print(e.Id, " ") // apply it; e.Id makes repeats after a crash harmless
			}
			return nil
		},
		Record: func(next string) error {
			if token = next; token == "20" { // write it to a file or a table
				return done
			}
			return nil
		},
	}
	fmt.Println(follower.Follow(context.Background()))
	// Output:
	// 13 14 15 16 17 18 19 20 seen them all
}
