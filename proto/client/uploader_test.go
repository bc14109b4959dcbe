package client_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/veredus/veredus/proto/client"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// numbered yields n recipients whose address tells their index.
func numbered(n int) client.Source {
	return func(first int64) iter.Seq2[*veredusv1.Recipient, error] {
		return func(yield func(*veredusv1.Recipient, error) bool) {
			for i := first; i <= int64(n); i++ {
				if !yield(&veredusv1.Recipient{Address: address(i)}, nil) {
					return
				}
			}
		}
	}
}

func address(index int64) string { return fmt.Sprintf("r%d@example.com", index) }

// checkStored fails unless the node has each recipient once, in order.
func checkStored(t *testing.T, n *node, want int) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.stored) != want {
		t.Fatalf("%d recipients stored, want %d", len(n.stored), want)
	}
	for i, r := range n.stored {
		if r.GetAddress() != address(int64(i+1)) {
			t.Fatalf("index %d holds %s", i+1, r.GetAddress())
		}
	}
}

func TestUploadStoresEachRecipientOnceThroughBrokenLines(t *testing.T) {
	for seed := range uint64(25) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(0)
				n.fail(flaky(seed, 6))
				u := client.Uploader{
					Client: veredusv1.NewCampaignServiceClient(n.serve(t)), Delivery: "deliveries/d",
					ChunkSize: 10 + int(seed), Window: 1 + int(seed%5), Patience: -1,
				}
				var last client.Progress
				u.Progress = func(p client.Progress) {
					if p.Durable < last.Durable || p.Resumed != 0 {
						t.Errorf("progress went from %+v to %+v", last, p)
					}
					last = p
				}
				totals, err := u.Upload(t.Context(), numbered(1234))
				if err != nil {
					t.Fatal(err)
				}
				if want := (client.Totals{Durable: 1234, Accepted: 1234}); totals != want {
					t.Errorf("totals %+v, want %+v", totals, want)
				}
				checkStored(t, n, 1234)
			})
		})
	}
}

func TestUploadGoesOnBehindWhatIsDurable(t *testing.T) {
	n := newNode(0)
	campaigns := veredusv1.NewCampaignServiceClient(n.serve(t))
	broke := errors.New("the file ended early")
	half := func(first int64) iter.Seq2[*veredusv1.Recipient, error] {
		return func(yield func(*veredusv1.Recipient, error) bool) {
			for r := range numbered(500)(first) {
				if !yield(r, nil) {
					return
				}
			}
			yield(nil, broke)
		}
	}
	u := client.Uploader{Client: campaigns, Delivery: "deliveries/d", ChunkSize: 100}
	if _, err := u.Upload(t.Context(), half); !errors.Is(err, broke) {
		t.Fatalf("error %v, want the source's", err)
	}
	asked := int64(0)
	totals, err := u.Upload(t.Context(), func(first int64) iter.Seq2[*veredusv1.Recipient, error] {
		asked = first
		return numbered(700)(first)
	})
	if err != nil {
		t.Fatal(err)
	}
	if asked%100 != 1 || asked > 501 {
		t.Errorf("the source was asked from index %d", asked)
	}
	if totals.Durable != 700 {
		t.Errorf("totals %+v", totals)
	}
	checkStored(t, n, 700)
}

func TestUploadOfNothingAndOfWhatIsThereAlready(t *testing.T) {
	n := newNode(0)
	u := client.Uploader{Client: veredusv1.NewCampaignServiceClient(n.serve(t)), Delivery: "deliveries/d"}
	for _, size := range []int{0, 3, 3, 2} {
		if _, err := u.Upload(t.Context(), numbered(size)); err != nil {
			t.Fatal(err)
		}
	}
	checkStored(t, n, 3)
}

func TestUploadAsksTheSourceAnewWhenTheNodeWasSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(0)
		lost := false
		n.fail(func(step string) error {
			n.mu.Lock()
			defer n.mu.Unlock()
			if step == "durable" && len(n.stored) == 400 && !lost {
				lost = true
				n.stored = n.stored[:150] // as after a restore from a backup
				return status.Error(codes.Unavailable, "restored")
			}
			return nil
		})
		u := client.Uploader{Client: veredusv1.NewCampaignServiceClient(n.serve(t)), Delivery: "deliveries/d", ChunkSize: 50, Window: 2}
		if _, err := u.Upload(t.Context(), numbered(1000)); err != nil {
			t.Fatal(err)
		}
		checkStored(t, n, 1000)
	})
}

func TestUploadKeepsChunksBelowTheLimits(t *testing.T) {
	n := newNode(0)
	big := strings.Repeat("x", 90_000)
	source := func(first int64) iter.Seq2[*veredusv1.Recipient, error] {
		return func(yield func(*veredusv1.Recipient, error) bool) {
			for r := range numbered(200)(first) {
				r.Variables = []byte(`{"text":"` + big + `"}`)
				if !yield(r, nil) {
					return
				}
			}
		}
	}
	u := client.Uploader{Client: veredusv1.NewCampaignServiceClient(n.serve(t)), Delivery: "deliveries/d"}
	if _, err := u.Upload(t.Context(), source); err != nil {
		t.Fatal(err) // a larger frame than 4 MiB would not pass
	}
	checkStored(t, n, 200)

	huge := []*veredusv1.Recipient{{Address: "a@example.com", Variables: make([]byte, 2<<20)}}
	_, err := (&client.Uploader{Client: u.Client, Delivery: "deliveries/d"}).Upload(t.Context(), func(int64) iter.Seq2[*veredusv1.Recipient, error] {
		return client.Slice(huge)(1)
	})
	if err == nil || !strings.Contains(err.Error(), "100 KB") {
		t.Errorf("error %v, want one that names the limit", err)
	}
}

func TestUploadReportsRejectedRecipients(t *testing.T) {
	n := newNode(0)
	var rejected []int64
	u := client.Uploader{
		Client: veredusv1.NewCampaignServiceClient(n.serve(t)), Delivery: "deliveries/d",
		Rejected: func(r *veredusv1.RejectedRecipient) { rejected = append(rejected, r.GetIndex()) },
	}
	totals, err := u.Upload(t.Context(), client.Slice([]*veredusv1.Recipient{{Address: "a@example.com"}, {}, {Address: "b@example.com"}}))
	if err != nil {
		t.Fatal(err)
	}
	if want := (client.Totals{Durable: 3, Accepted: 2, Rejected: 1}); totals != want {
		t.Errorf("totals %+v, want %+v", totals, want)
	}
	if len(rejected) != 1 || rejected[0] != 2 {
		t.Errorf("rejected %v, want index 2", rejected)
	}
}

func TestUploadEndsWhereARepeatCannotHelp(t *testing.T) {
	n := newNode(0)
	n.fail(func(step string) error {
		if step == "received" {
			return refusal(codes.Aborted, "STREAM_SUPERSEDED")
		}
		return nil
	})
	u := client.Uploader{Client: veredusv1.NewCampaignServiceClient(n.serve(t)), Delivery: "deliveries/d"}
	_, err := u.Upload(t.Context(), numbered(10))
	if status.Code(err) != codes.Aborted || client.Reason(err) != veredusv1.ErrorReason_ERROR_REASON_STREAM_SUPERSEDED {
		t.Errorf("error %v (%v)", err, client.Reason(err))
	}
	if n.streams != 1 {
		t.Errorf("%d streams, want 1", n.streams)
	}
}

func TestUploadLosesPatienceWithoutProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(0)
		n.fail(func(string) error { return status.Error(codes.Unavailable, "down") })
		var waits []time.Duration
		u := client.Uploader{
			Client: veredusv1.NewCampaignServiceClient(n.serve(t)), Delivery: "deliveries/d",
			Patience:  2 * time.Minute,
			Reconnect: func(_ error, wait time.Duration) { waits = append(waits, wait) },
		}
		began := time.Now()
		_, err := u.Upload(t.Context(), numbered(10))
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "no progress for 2m0s") {
			t.Errorf("error %v", err)
		}
		if took := time.Since(began); took < 100*time.Second || took > 2*time.Minute {
			t.Errorf("gave up after %v", took)
		}
		if waits[0] > 130*time.Millisecond || waits[len(waits)-1] < 7*time.Second || waits[len(waits)-1] > 12*time.Second {
			t.Errorf("waits %v", waits)
		}
	})
}

func TestUploadEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(0)
		n.fail(func(string) error { return status.Error(codes.Unavailable, "down") })
		why := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, why)
		defer cancel()
		u := client.Uploader{Client: veredusv1.NewCampaignServiceClient(n.serve(t)), Delivery: "deliveries/d", Patience: -1}
		if _, err := u.Upload(ctx, numbered(10)); !errors.Is(err, why) {
			t.Errorf("error %v, want the context's cause", err)
		}
	})
}

func BenchmarkUpload(b *testing.B) {
	n := newNode(0)
	u := client.Uploader{Client: veredusv1.NewCampaignServiceClient(n.serve(b)), Delivery: "deliveries/d"}
	b.ReportAllocs()
	if _, err := u.Upload(b.Context(), numbered(b.N)); err != nil {
		b.Fatal(err)
	}
}
