//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"
)

// report prints medians, with lowest and highest, and how they stand to the bars.
func report(out io.Writer, runs []*result) {
	fmt.Fprintf(out, "\n%s\n", machine())
	by := map[string][]*result{}
	for _, r := range runs {
		by[r.Case] = append(by[r.Case], r)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "median (low - high)")
	for _, c := range allCases {
		if len(by[c]) > 0 {
			fmt.Fprintf(w, "\t%s", c)
		}
	}
	fmt.Fprintln(w)
	rows := table
	if slices.ContainsFunc(runs, func(r *result) bool { return r.FeedbackP99 != 0 }) {
		rows = append(slices.Clone(table), feedbackRows...)
	}
	for _, l := range rows {
		fmt.Fprint(w, l.name)
		for _, c := range allCases {
			if len(by[c]) > 0 {
				fmt.Fprint(w, "\t"+spread(by[c], l))
			}
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush()
	bars(out, by)
}

// row is a figure of the table.
type row struct {
	name   string
	format string
	value  func(*result) float64
}

var table = []row{
	{"messages", "%.0f", func(r *result) float64 { return float64(r.Messages) }},
	{"messages/s", "%.0f", func(r *result) float64 { return r.PerSecond }},
	{"CPU-s per 1,000", "%.3f", func(r *result) float64 { return r.CPUPerThousand }},
	{"peak memory, MB", "%.0f", func(r *result) float64 { return float64(r.PeakBytes) / 1e6 }},
	{"p50 in the queue, s", "%.2f", func(r *result) float64 { return r.P50 }},
	{"p99 in the queue, s", "%.2f", func(r *result) float64 { return r.P99 }},
	{"p50 of a single message, s", "%.3f", func(r *result) float64 { return r.ProbeP50 }},
	{"p99 of a single message, s", "%.3f", func(r *result) float64 { return r.ProbeP99 }},
	{"feeding, s", "%.2f", func(r *result) float64 { return r.FeedSeconds }},
	{"disk, bytes/message", "%.0f", func(r *result) float64 { return float64(r.DiskBytes) / float64(r.Messages) }},
	{"receiver's CPU-s per 1,000", "%.3f", func(r *result) float64 { return r.SinkCPU }},
	{"client's CPU-s per 1,000", "%.3f", func(r *result) float64 { return r.ClientCPU }},
	{"cores used by others", "%.2f", func(r *result) float64 { return r.ForeignCores }},
	{"OpenSSL RSA-2048/s", "%.0f", func(r *result) float64 { return r.Signing.PerSecond }},
	{"CPU / OpenSSL's signature", "%.2f", func(r *result) float64 { return r.CPURatio }},
	{"rate / OpenSSL's rate", "%.2f", func(r *result) float64 { return r.RateRatio }},
}

// feedbackRows are of runs with -feedback.
var feedbackRows = []row{
	{"p50 of feedback, s", "%.3f", func(r *result) float64 { return r.FeedbackP50 }},
	{"p99 of feedback, s", "%.3f", func(r *result) float64 { return r.FeedbackP99 }},
}

func spread(runs []*result, l row) string {
	list := values(runs, l.value)
	low, high := fmt.Sprintf(l.format, list[0]), fmt.Sprintf(l.format, list[len(list)-1])
	mid := fmt.Sprintf(l.format, quantile(list, 0.5))
	if low == high {
		return mid
	}
	return fmt.Sprintf("%s (%s - %s)", mid, low, high)
}

func values(runs []*result, f func(*result) float64) []float64 {
	list := make([]float64, len(runs))
	for i, r := range runs {
		list[i] = f(r)
	}
	slices.Sort(list)
	return list
}

func median(runs []*result, f func(*result) float64) float64 { return quantile(values(runs, f), 0.5) }

// bars says which aims are met.
func bars(out io.Writer, by map[string][]*result) {
	say := func(met bool, format string, args ...any) {
		word := "missed"
		if met {
			word = "met"
		}
		fmt.Fprintf(out, "%-7s %s\n", word, fmt.Sprintf(format, args...))
	}
	perSecond := func(r *result) float64 { return r.PerSecond }
	fmt.Fprintln(out)
	if runs := by[caseVeredus]; len(runs) > 0 {
		cpu := median(runs, func(r *result) float64 { return r.CPURatio })
		say(cpu <= 1.9, "CPU at most 1.9 times that of OpenSSL's signatures: %.2f", cpu)
		rate := median(runs, func(r *result) float64 { return r.RateRatio })
		say(rate >= 0.8, "messages/s at least 0.8 of one core's OpenSSL signatures/s: %.2f", rate)
		if others := by[casePostfix]; len(others) > 0 {
			times := median(runs, perSecond) / median(others, perSecond)
			say(times >= 8, "at least 8 times the messages/s of Postfix with OpenDKIM: %.1f", times)
		}
	}
	if runs := by[caseUnsigned]; len(runs) > 0 {
		cpu := median(runs, func(r *result) float64 { return r.CPUPerThousand })
		say(cpu <= 0.15, "without signing at most 0.15 CPU-seconds per 1,000: %.3f", cpu)
	}
}

// ownUsage is the CPU time of this process, which is the client.
func ownUsage() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
