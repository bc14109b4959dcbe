package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/veredus/veredus/integration/world"
	"github.com/veredus/veredus/integration/world/serve"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// demoResult is the JSON of the demonstration.
type demoResult struct {
	Recipients     int      `json:"recipients"`
	Accepted       int64    `json:"accepted"`
	Ignored        int64    `json:"ignored"`
	Rejected       int64    `json:"rejected"`
	Sent           int64    `json:"sent"`
	Failed         int64    `json:"failed"`
	Cancelled      int64    `json:"cancelled"`
	SuccessPercent *float64 `json:"success_percent"`
	Attempts       int64    `json:"attempts"`
	// DurationSeconds is from the start of the delivery to its end, and
	// MessagesPerSecond what was sent in it; much of it is waiting for retries.
	DurationSeconds   float64 `json:"duration_seconds"`
	MessagesPerSecond float64 `json:"messages_per_second"`
	// FirstAttemptsPerSecond is the rate until nine tenths of first attempts.
	FirstAttemptsPerSecond float64 `json:"messages_per_second_to_p90"`
	UploadSeconds          float64 `json:"upload_seconds"`
	MessageBytes           int     `json:"message_bytes"`
	CPUSeconds             float64 `json:"cpu_seconds"`
	PeakRSSBytes           int64   `json:"peak_rss_bytes"`

	ByProvider []providerResult `json:"by_provider"`
	ByReason   []reasonSummary  `json:"by_reason"`
	// LateBounces, Complaints and Unsubscribes came back after delivery, as the
	// node's counters have them; a late bounce moved its message from sent to failed.
	LateBounces  int64 `json:"late_bounces"`
	Complaints   int64 `json:"complaints"`
	Unsubscribes int64 `json:"unsubscribes"`
	// Quarantined, Denylisted and Counting are addresses by state at the end.
	Quarantined int64 `json:"quarantined"`
	Denylisted  int64 `json:"denylisted"`
	Counting    int64 `json:"counting"`

	Ledger   *ledger  `json:"ledger"`
	OK       bool     `json:"ok"`
	Problems []string `json:"problems"`
}

type providerResult struct {
	Provider       string   `json:"provider"`
	Recipients     int64    `json:"recipients"`
	Sent           int64    `json:"sent"`
	Failed         int64    `json:"failed"`
	Cancelled      int64    `json:"cancelled"`
	Deferrals      int64    `json:"deferrals"`
	Attempts       int64    `json:"attempts"`
	SuccessPercent *float64 `json:"success_percent"`
	// Received is how many different messages the receiver's own ledger has: those
	// sent, and the late bounces.
	Received     int64           `json:"received"`
	LateBounces  int64           `json:"late_bounces"`
	Complaints   int64           `json:"complaints"`
	Unsubscribes int64           `json:"unsubscribes"`
	HardPercent  float64         `json:"hard_percent"`
	SoftPercent  float64         `json:"soft_percent"`
	ByReason     []reasonSummary `json:"by_reason"`
}

// report compares the ledgers and prints the result. The node has stopped.
func (d *demo) report(c *demoCampaign) error {
	receivers := d.box.world.Ledger()
	l, err := c.tally.compare(&receivers, d.box.world.Dump)
	if err != nil {
		return err
	}
	r := d.result(c, l, &receivers)
	d.balance(r, c, l)
	r.Problems, r.OK = append([]string{}, l.problems...), len(l.problems) == 0
	d.print(r, c)
	if d.json {
		if err := printJSON(d.cmd.OutOrStdout(), r); err != nil {
			return err
		}
	}
	if !r.OK {
		return errors.New("the demonstration failed:\n  " + strings.Join(r.Problems, "\n  "))
	}
	return nil
}

func (d *demo) result(c *demoCampaign, l *ledger, receivers *serve.Snapshot) *demoResult {
	k := c.ended.GetKpis()
	r := &demoResult{
		Recipients: d.recipients, Accepted: k.GetLedger().GetAccepted(), Ignored: k.GetLedger().GetIgnored(), Rejected: k.GetRejected(),
		Sent: k.GetLedger().GetSent(), Failed: k.GetLedger().GetFailed(), Cancelled: k.GetLedger().GetCancelled(),
		Attempts: k.GetAttempts(), DurationSeconds: c.took.Seconds(), UploadSeconds: c.uploaded.Seconds(), MessageBytes: c.size,
		MessagesPerSecond: float64(k.GetLedger().GetSent()) / c.took.Seconds(), FirstAttemptsPerSecond: c.tally.firsts.rate(),
		CPUSeconds: cpuSeconds(), PeakRSSBytes: peakRSS(), ByReason: reasons(k.GetFailedByReason()), Ledger: l,
		LateBounces: l.LateBounces, Complaints: k.GetComplaints(), Unsubscribes: k.GetUnsubscribes(),
		Quarantined: c.excluded.quarantined, Denylisted: c.excluded.denylisted, Counting: c.excluded.counting,
	}
	if k != nil {
		r.SuccessPercent = k.SuccessPercent
	}
	for i, p := range c.tally.providers {
		if p.recipients > 0 {
			r.ByProvider = append(r.ByProvider, p.result(&receivers.ByProvider[i].Counts))
		}
	}
	return r
}

// result sets our figures of a provider beside its own.
func (p *provider) result(counts *serve.Counts) providerResult {
	share := func(n int64) float64 { return 100 * float64(n) / float64(p.recipients) }
	why, success := p.reasons(), share(p.sent)
	r := providerResult{
		Provider: p.name, Recipients: p.recipients, Sent: p.sent, Failed: p.failed, Cancelled: p.cancelled,
		Deferrals: p.deferrals, Attempts: p.attempts, SuccessPercent: &success,
		Received:    counts.Messages - counts.Duplicates - counts.DuplicatesProvoked,
		LateBounces: p.lateBounces, Complaints: p.complaints, Unsubscribes: p.unsubscribes,
		HardPercent: share(why.hard), SoftPercent: share(why.soft), ByReason: []reasonSummary{},
	}
	for _, reason := range slices.Sorted(maps.Keys(p.byReason)) {
		r.ByReason = append(r.ByReason, reasonSummary{reasonName(reason), p.byReason[reason]})
	}
	return r
}

// balance checks the node's counters against the feedback it gave.
func (d *demo) balance(r *demoResult, c *demoCampaign, l *ledger) {
	_, total := c.tally.snapshot()
	truth := c.ended.GetKpis().GetLedger()
	if c.ended.GetState() != veredusv1.DeliveryState_DELIVERY_STATE_FINISHED {
		l.problem("the delivery is %s, not finished", stateName(c.ended))
	}
	if r.Accepted+r.Rejected != int64(d.recipients) {
		l.problem("%d recipients were uploaded, but %d accepted and %d rejected", d.recipients, r.Accepted, r.Rejected)
	}
	if truth.GetPending() != 0 || truth.GetTakenIntoAccount() != 0 || r.Accepted != r.Ignored+r.Sent+r.Failed+r.Cancelled {
		l.problem("the counters do not balance: %v", truth)
	}
	if total.complaints != r.Complaints || total.unsubscribes != r.Unsubscribes {
		l.problem("the feedback has %d complaints and %d unsubscribes, the counters say %d and %d", total.complaints, total.unsubscribes, r.Complaints, r.Unsubscribes)
	}
	if total.sent != r.Sent || total.failed != r.Failed {
		l.problem("the feedback has %d delivered and %d failed, the counters say %d and %d", total.sent, total.failed, r.Sent, r.Failed)
	}
}

func (d *demo) print(r *demoResult, c *demoCampaign) {
	printKpis(d.out, &veredusv1.Delivery{Name: c.ended.GetName(), State: c.ended.GetState(), Kpis: withoutDestinations(c.ended.GetKpis())})
	fmt.Fprintln(d.out)
	t := newTable("provider", "recipients", "sent", "failed", "deferrals", "attempts", "success", "received")
	for _, p := range r.ByProvider {
		t.row(p.Provider, p.Recipients, p.Sent, p.Failed, p.Deferrals, p.Attempts, percent(p.Sent, p.Recipients), p.Received)
	}
	t.print(d.out)
	d.printReasons(c)
	d.printReturns(r)

	l := r.Ledger
	fmt.Fprintln(d.out, "\nOur ledger and the receivers':")
	pairs(d.out,
		"delivered, by our feedback", thousands(l.Delivered),
		"accepted, by the receivers", fmt.Sprintf("%s messages, %s different", thousands(l.Messages), thousands(l.Unique)),
		"missing at the receivers", thousands(l.Missing),
		"unexpected there", thousands(l.Unexpected),
		"DKIM verified / not", thousands(l.DKIMVerified)+" / "+thousands(l.DKIMFailed),
		"sent twice", thousands(l.Duplicates),
		"sent twice after a lost reply", thousands(l.DuplicatesProvoked),
		"limits broken", thousands(l.LimitViolations),
	)
	fmt.Fprintf(d.out, "\n%s messages of %.1f KB in %v; %s/s until nine tenths of first attempts; %.1f s of CPU, %s MB of memory at most\n",
		thousands(r.Sent), float64(r.MessageBytes)/1000, c.took.Round(100*time.Millisecond), thousands(int64(r.FirstAttemptsPerSecond)), r.CPUSeconds, thousands(r.PeakRSSBytes/1_000_000))
	if r.OK {
		fmt.Fprintln(d.out, "Both ledgers agree.")
	}
}

// printReasons is why mail failed at each provider.
func (d *demo) printReasons(c *demoCampaign) {
	var rows []reasonRow
	for _, p := range c.tally.providers {
		rows = append(rows, p.reasons())
	}
	fmt.Fprintln(d.out)
	printReasons(d.out, "failed at", rows)
}

// printReturns is what came back after delivery.
func (d *demo) printReturns(r *demoResult) {
	fmt.Fprintln(d.out, "\nWhat mailboxes sent back after they had accepted a mail, and what we counted:")
	t := newTable("", "due", "accepted", "one click", "refused", "counted")
	full, unknown := r.Ledger.Returns[world.FateOOBFull], r.Ledger.Returns[world.FateOOBUnknown]
	bounces := serve.ReturnCounts{Due: full.Due + unknown.Due, Accepted: full.Accepted + unknown.Accepted, Refused: full.Refused + unknown.Refused}
	for _, row := range []struct {
		what    string
		c       serve.ReturnCounts
		counted string
	}{
		{"late bounces", bounces, thousands(r.LateBounces)},
		{"complaints", r.Ledger.Returns[world.FateComplaint], thousands(r.Complaints)},
		{"unsubscribes", r.Ledger.Returns[world.FateUnsubscribe], thousands(r.Unsubscribes)},
		{"automatic replies", r.Ledger.Returns[world.FateAutoReply], "-"},
	} {
		t.row(row.what, row.c.Due, row.c.Accepted, row.c.OneClick, row.c.Refused, row.counted)
	}
	t.print(d.out)
	fmt.Fprintf(d.out, "Addresses: %s quarantined, %s denylisted, %s with errors counted.\n", thousands(r.Quarantined), thousands(r.Denylisted), thousands(r.Counting))
}

// withoutDestinations leaves the table by provider to us, who know receivers by name.
func withoutDestinations(k *veredusv1.Kpis) *veredusv1.Kpis {
	k.ByDestination = nil
	return k
}

// cpuSeconds is what this process has used.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// peakRSS is the most memory this process has had resident, 0 where the system
// does not tell.
func peakRSS() int64 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}
