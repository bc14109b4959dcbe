package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/campaign"
	"github.com/veredus/veredus/server/config"
)

const (
	// keepResult is how long a result answers for the same domain and pool; shortly when
	// something could not be found out.
	keepResult, keepUnknown = 20 * time.Second, 10 * time.Second
	// deadline bounds an examination while a delivery is prepared.
	deadline = 5 * time.Second
	// maxResults bounds the memory of results.
	maxResults = 256
)

// Doctor examines the From domain and the pool of deliveries. It is safe for concurrent use.
type Doctor struct {
	options func() Options
	now     func() time.Time
	asking  singleflight.Group

	mu sync.Mutex
	by map[result]kept
}

type result struct{ from, pool string }

type kept struct {
	config   *config.Config // of another one the result says nothing
	until    time.Time
	findings []Finding
}

// New makes a Doctor. options is asked at every examination, so that a reload takes
// effect at once; its From, Pool, and WithoutNode are set for each. now is nil for time.Now.
func New(options func() Options, now func() time.Time) *Doctor {
	if now == nil {
		now = time.Now
	}
	return &Doctor{options: options, now: now, by: map[result]kept{}}
}

// Prepare is Delivery for a delivery that is prepared: a campaign.Options.Doctor.
func (d *Doctor) Prepare(ctx context.Context, delivery *campaign.Delivery) []*veredusv1.Finding {
	return d.Delivery(ctx, delivery.Watch([]string{}).From, cmp.Or(delivery.Spec.GetPool(), campaign.DefaultPool))
}

// Delivery examines what receivers will see of mail from a domain by a pool. It answers
// within 5 s, and at once for 20 s after that; nothing unless relay.mode is live.
//
// An error blocks the start, so only that is one which makes all mail fail: a
// signature that nobody can verify, nothing that aligns, and SPF without a source where
// no signature stands in. The other errors of Check are warnings here. In a closed network
// (relay.allow_private_addresses), whose receivers may not care, only a DKIM record that
// contradicts the key is an error. What is in order is one finding together.
func (d *Doctor) Delivery(ctx context.Context, from, pool string) []*veredusv1.Finding {
	o := d.options()
	if o.Config == nil || !o.Live && o.Config.Relay.Mode != config.Live || from == "" {
		return nil
	}
	o.From, o.Pool, o.WithoutNode = []string{from}, pool, true
	key := result{plain(from), pool}
	if list, ok := d.known(key, o.Config); ok {
		return o.lenient(list, from, pool)
	}
	flight := d.asking.DoChan(fmt.Sprintf("%p %q %q", o.Config, key.from, pool), func() (any, error) {
		// It outlives the caller that began it: others may have joined.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deadline)
		defer cancel()
		list, err := Check(ctx, o)
		if err != nil {
			list = []Finding{node.unknown("doctor", "what receivers see", err)}
		}
		d.keep(key, o.Config, list)
		return list, nil
	})
	select {
	case res := <-flight:
		return o.lenient(res.Val.([]Finding), from, pool)
	case <-ctx.Done():
		return nil
	}
}

func (d *Doctor) known(key result, cfg *config.Config) ([]Finding, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k, ok := d.by[key]
	return k.findings, ok && k.config == cfg && d.now().Before(k.until)
}

func (d *Doctor) keep(key result, cfg *config.Config, list []Finding) {
	life := keepResult
	if slices.ContainsFunc(list, func(f Finding) bool { return strings.HasSuffix(f.Code, ".unknown") }) {
		life = keepUnknown
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.by) >= maxResults {
		clear(d.by)
	}
	d.by[key] = kept{config: cfg, until: d.now().Add(life), findings: list}
}

// lenient are the findings as an analysis shows them.
func (o *Options) lenient(list []Finding, from, pool string) []*veredusv1.Finding {
	blocks := o.blocking(list)
	var found []*veredusv1.Finding
	var good []string
	for _, f := range list {
		switch {
		case f.Severity == OK:
			if !slices.Contains(good, f.Code) {
				good = append(good, f.Code)
			}
			continue
		case f.Code == "dkim.no_key": // the analysis says so itself
			continue
		case f.Severity == Error && !slices.Contains(blocks, f.Code):
			f.Severity = Warning
		}
		found = append(found, f.API())
	}
	// What another source or domain lacks is not in order, though this one has it.
	good = slices.DeleteFunc(good, func(code string) bool {
		return slices.ContainsFunc(list, func(f Finding) bool {
			return (f.Severity == Warning || f.Severity == Error) && aspect(f.Code) == aspect(code)
		})
	})
	if len(good) > 0 {
		found = append(found, &veredusv1.Finding{
			Severity: veredusv1.Severity_SEVERITY_INFO, Code: "doctor.passed", Field: "sender.from",
			Description: fmt.Sprintf("mail from %s by pool %s is in order as to: %s", from, pool, strings.Join(good, ", ")),
		})
	}
	return found
}

// aspect is what a code is about: spf of spf.source_missing.
func aspect(code string) string {
	about, _, _ := strings.Cut(code, ".")
	return about
}

// blocking are the codes of errors with which mail certainly fails.
func (o *Options) blocking(list []Finding) []string {
	codes := []string{"dkim.record"}
	if o.Config.Relay.AllowPrivateAddresses {
		return codes
	}
	codes = append(codes, "dkim.missing", "dmarc.alignment")
	signed := !slices.ContainsFunc(list, func(f Finding) bool { return f.Severity == Error && strings.HasPrefix(f.Code, "dkim.") })
	if !signed {
		codes = append(codes, "spf.missing", "spf.source_missing", "spf.invalid")
	}
	return codes
}

// API is the finding as the analysis of a delivery has it, with the record to publish in
// its description.
func (f Finding) API() *veredusv1.Finding {
	severities := map[Severity]veredusv1.Severity{
		OK: veredusv1.Severity_SEVERITY_INFO, Info: veredusv1.Severity_SEVERITY_INFO,
		Warning: veredusv1.Severity_SEVERITY_WARNING, Error: veredusv1.Severity_SEVERITY_ERROR,
	}
	n := &veredusv1.Finding{Severity: severities[f.Severity], Code: f.Code, Field: "sender.from", Description: f.Subject + ": " + f.Description}
	if strings.HasPrefix(f.Subject, "source ") {
		n.Field = "pool"
	}
	if f.Record != nil {
		n.Description += fmt.Sprintf(" [%s %s %s]", f.Record.Name, f.Record.Type, f.Record.Value)
	}
	return n
}
