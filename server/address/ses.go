package address

import (
	"encoding/json"
	"strconv"
	"strings"
)

// Amazon SES has two reasons in its suppression list.
const (
	sesBounce    = "BOUNCE"
	sesComplaint = "COMPLAINT"
)

// sesRecord is a SuppressedDestinationSummary of ListSuppressedDestinations, with a capital
// letter or, as in the files of import jobs, without. The time is a text or, in the raw
// answers of the API, seconds since 1970.
type sesRecord struct {
	EmailAddress   string
	Reason         string
	LastUpdateTime json.RawMessage
}

// readSES reads the JSON of ListSuppressedDestinations, also page after page; JSON lines; or the CSV of
// suppression list jobs, which has no header: address,reason.
func (r *fileReader) readSES() error {
	if r.isJSON() {
		return r.eachRecord(records{address: "EmailAddress", lists: []string{"SuppressedDestinationSummaries"}}, r.sesJSON)
	}
	return r.eachRow(func([]string) columns {
		return columns{addressColumns[0]: 0, "reason": 1, "lastupdatetime": 2}
	}, func(c columns, fields []string) (Entry, string, error) {
		column, _ := c.address()
		return r.sesEntry(cell(fields, column), c.of(fields, "reason"), c.of(fields, "lastupdatetime"))
	})
}

func (r *fileReader) sesJSON(raw []byte) (Entry, string, error) {
	var record sesRecord
	if err := json.Unmarshal(raw, &record); err != nil {
		return Entry{}, "", recordProblem(err, `{"EmailAddress": "name@example.com", "Reason": "BOUNCE"}`)
	}
	at := string(record.LastUpdateTime)
	if text, err := strconv.Unquote(at); err == nil {
		at = text
	}
	if at == "null" {
		at = ""
	}
	return r.sesEntry(record.EmailAddress, record.Reason, at)
}

// sesEntry quarantines after a bounce and denylists after a complaint, for the scope of the import: SES itself
// sends suppressed addresses nothing at all.
func (r *fileReader) sesEntry(to, reason, at string) (e Entry, text string, err error) {
	if e, err = r.start(to, r.defaults); err != nil {
		return e, "", err
	}
	switch strings.ToUpper(strings.TrimSpace(reason)) {
	case sesBounce:
		e.Status, e.Origin = Quarantined, FromBounce
	case sesComplaint:
		e.Status, e.Origin = Denylisted, FromComplaint
	default:
		return e, "", problemf("has the reason %q; use %s or %s", printable(reason), sesBounce, sesComplaint)
	}
	if e.Updated, err = r.time(at); err != nil {
		return e, "", err
	}
	e.Created = e.Updated
	e.finish()
	return e, "suppressed at Amazon SES", nil
}
