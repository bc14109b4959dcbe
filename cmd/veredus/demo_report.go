package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

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
	Ledger     *ledger          `json:"ledger"`
	OK         bool             `json:"ok"`
	Problems   []string         `json:"problems"`
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
	// Received is how many different messages the receiver's own ledger has.
	Received int64 `json:"received"`
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
	}
	if k != nil {
		r.SuccessPercent = k.SuccessPercent
	}
	for i, p := range c.tally.providers {
		if p.recipients == 0 {
			continue
		}
		counts := receivers.ByProvider[i].Counts
		success := 100 * float64(p.sent) / float64(p.recipients)
		r.ByProvider = append(r.ByProvider, providerResult{
			p.name, p.recipients, p.sent, p.failed, p.cancelled, p.deferrals, p.attempts, &success,
			counts.Messages - counts.Duplicates - counts.DuplicatesProvoked,
		})
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
