package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/veredus/veredus/integration/node"
)

// sample is the node at one moment.
type sample struct {
	node.Figures
	at                        time.Duration
	accepted, finals, streams int64
}

// String is a row of the table.
func (s sample) String() string {
	return fmt.Sprintf("| %s | %.0f | %.0f | %d | %d | %d | %d | %d |", s.at.Round(time.Second), s.Resident, s.Heap,
		s.Goroutines, s.Descriptors, s.accepted, s.accepted-s.finals, s.streams)
}

// tableRows is about how many samples the table shows.
const tableRows = 16

// table is the run as Markdown.
func table(samples []sample) string {
	var b strings.Builder
	b.WriteString("| at | resident, MiB | heap, MiB | goroutines | descriptors | messages | not final | subscriptions |\n|---|---:|---:|---:|---:|---:|---:|---:|\n")
	step := max(1, len(samples)/tableRows)
	for i, s := range samples {
		if i%step == 0 || i == len(samples)-1 {
			fmt.Fprintln(&b, s)
		}
	}
	return b.String()
}

// bounds are how much a figure may drift from the end of the warm-up to the end of the
// load, as a share of its median and absolutely; the larger one counts.
var bounds = []struct {
	name     string
	of       func(sample) float64
	share    float64
	absolute float64
}{
	{"resident, MiB", func(s sample) float64 { return s.Resident }, 0.10, 24},
	{"heap, MiB", func(s sample) float64 { return s.Heap }, 0.10, 24},
	{"goroutines", func(s sample) float64 { return float64(s.Goroutines) }, 0.10, 20},
	{"descriptors", func(s sample) float64 { return float64(s.Descriptors) }, 0.10, 20},
}

// warmUp is the share of the load that is not judged: caches fill, and hostile receivers get
// what they hold.
const warmUp = 3 // a third

// judge measures the drift of each figure between the end of the warm-up and that of the
// load. The error says which is over its bound.
func judge(samples []sample, load time.Duration) (text string, err error) {
	judged := slices.DeleteFunc(slices.Clone(samples), func(s sample) bool { return s.at < load/warmUp || s.at > load })
	if len(judged) < 3 {
		return "", fmt.Errorf("%d samples behind the warm-up are too few to judge", len(judged))
	}
	span := judged[len(judged)-1].at - judged[0].at
	var b strings.Builder
	fmt.Fprintf(&b, "| figure, over the last %s of the load | least | median | most | drift | bound |\n|---|---:|---:|---:|---:|---:|\n", span.Round(time.Second))
	for _, f := range bounds {
		values := make([]float64, len(judged))
		for i, s := range judged {
			values[i] = f.of(s)
		}
		drift := slope(judged, values) * span.Seconds()
		slices.Sort(values)
		median := values[len(values)/2]
		bound := max(f.share*median, f.absolute)
		fmt.Fprintf(&b, "| %s | %.0f | %.0f | %.0f | %+.1f | %.0f |\n", f.name, values[0], median, values[len(values)-1], drift, bound)
		if drift > bound {
			err = errors.Join(err, fmt.Errorf("%s drifted by %+.1f, which is more than %.0f", f.name, drift, bound))
		}
	}
	return b.String(), err
}

// slope is the median of the slopes between all pairs of samples (Theil and Sen), a
// second: single peaks do not move it.
func slope(samples []sample, values []float64) float64 {
	var slopes []float64
	for i := range samples {
		for j := range i {
			slopes = append(slopes, (values[i]-values[j])/(samples[i].at-samples[j].at).Seconds())
		}
	}
	slices.Sort(slopes)
	return slopes[len(slopes)/2]
}
