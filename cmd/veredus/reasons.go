package main

import (
	"cmp"
	"io"
	"maps"
	"slices"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// reasonRow is how often mail to one provider failed, and why.
type reasonRow struct {
	name       string
	toDeliver  int64
	byReason   map[veredusv1.FailureReason]int64
	hard, soft int64
}

// reasonRows are the rows of a delivery's destinations.
func reasonRows(destinations []*veredusv1.DestinationKpis) []reasonRow {
	var rows []reasonRow
	for _, d := range destinations {
		row := reasonRow{d.GetDestination(), d.GetToDeliver(), map[veredusv1.FailureReason]int64{}, d.GetHard(), d.GetSoft()}
		for _, c := range d.GetFailedByReason() {
			row.byReason[c.GetReason()] = c.GetCount()
		}
		rows = append(rows, row)
	}
	return rows
}

// printReasons is a table of providers and reasons, the commonest reason first.
// Providers where nothing failed are left out; without any failure nothing is
// printed, and the answer is false.
func printReasons(out io.Writer, provider string, rows []reasonRow) bool {
	total := map[veredusv1.FailureReason]int64{}
	for _, r := range rows {
		for reason, n := range r.byReason {
			total[reason] += n
		}
	}
	reasons := slices.DeleteFunc(slices.SortedFunc(maps.Keys(total), func(a, b veredusv1.FailureReason) int {
		return cmp.Or(cmp.Compare(total[b], total[a]), cmp.Compare(a, b))
	}), func(r veredusv1.FailureReason) bool { return total[r] == 0 })
	if len(reasons) == 0 {
		return false
	}
	header := []string{provider}
	for _, reason := range reasons {
		header = append(header, reasonName(reason))
	}
	t := newTable(append(header, "hard", "soft")...)
	for _, r := range rows {
		cells, failed := []any{r.name}, false
		for _, reason := range reasons {
			failed = failed || r.byReason[reason] > 0
			cells = append(cells, nonZero(r.byReason[reason]))
		}
		if failed {
			t.row(append(cells, percent(r.hard, r.toDeliver), percent(r.soft, r.toDeliver))...)
		}
	}
	t.print(out)
	return true
}

// hardReason and softReason are how Kpis.hard and Kpis.soft count failures.
func hardReason(r veredusv1.FailureReason) bool {
	return r == veredusv1.FailureReason_FAILURE_REASON_USER_UNKNOWN
}

func softReason(r veredusv1.FailureReason) bool {
	switch r {
	case veredusv1.FailureReason_FAILURE_REASON_UNREACHABLE, veredusv1.FailureReason_FAILURE_REASON_MAILBOX_FULL,
		veredusv1.FailureReason_FAILURE_REASON_INVALID_DOMAIN, veredusv1.FailureReason_FAILURE_REASON_ACCOUNT_DISABLED,
		veredusv1.FailureReason_FAILURE_REASON_NOT_CONNECTED, veredusv1.FailureReason_FAILURE_REASON_REFUSED:
		return true
	}
	return false
}
