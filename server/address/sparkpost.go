package address

import (
	"encoding/json"
	"errors"
	"strings"
)

// What SparkPost's suppression list says of an entry.
const (
	sparkTransactional    = "transactional"
	sparkNonTransactional = "non_transactional"
	sparkBounce           = "Bounce Rule"
	sparkComplaint        = "Spam Complaint"
	sparkListUnsubscribe  = "List Unsubscribe"
	sparkLinkUnsubscribe  = "Unsubscribe Link"
	sparkManual           = "Manually Added"
)

// sparkHeader is the header of exported files. SparkPost itself needs the first three.
var sparkHeader = []string{"recipient", "type", "description", "source", "created", "updated", "list_id"}

// sparkRecord is an entry of the suppression list API. Before there was a type, two flags
// said which mail is meant.
type sparkRecord struct {
	Recipient        string `json:"recipient"`
	Type             string `json:"type"`
	Transactional    *bool  `json:"transactional"`
	NonTransactional *bool  `json:"non_transactional"`
	Source           string `json:"source"`
	Description      string `json:"description"`
	Created          string `json:"created"`
	Updated          string `json:"updated"`
	List             string `json:"list_id"`
}

// readSparkPost reads the CSV that SparkPost takes and gives (recipient,type,description; or, in older
// lists, recipient,transactional,non_transactional,description), the JSON of its API, also page
// after page, or JSON lines.
func (r *fileReader) readSparkPost() error {
	pairs := sparkPairs{take: r.take}
	r.take = pairs.add
	var err error
	if r.isJSON() {
		err = r.eachRecord(records{address: "recipient", lists: []string{"results", "recipients"}}, r.sparkJSON)
	} else {
		err = r.eachRow(func([]string) columns { return nil }, r.sparkRow)
	}
	if flushed := pairs.flush(); err == nil {
		err = flushed
	}
	return err
}

func (r *fileReader) sparkJSON(raw []byte) (Entry, string, error) {
	var record sparkRecord
	if err := json.Unmarshal(raw, &record); err != nil {
		return Entry{}, "", recordProblem(err, `{"recipient": "name@example.com", "type": "non_transactional"}`)
	}
	return r.sparkEntry(record)
}

func (r *fileReader) sparkRow(c columns, fields []string) (Entry, string, error) {
	column, _ := c.address()
	record := sparkRecord{
		Recipient: cell(fields, column), Type: c.of(fields, "type"), Source: c.of(fields, "source"), Description: c.of(fields, "description"),
		Created: c.of(fields, "created"), Updated: c.of(fields, "updated"), List: c.of(fields, "listid"),
	}
	if record.Type == "" {
		transactional, err1 := csvBool("transactional", c.of(fields, "transactional"))
		other, err2 := csvBool("non_transactional", c.of(fields, "nontransactional"))
		if err := errors.Join(err1, err2); err != nil {
			return Entry{}, "", err
		}
		record.Transactional, record.NonTransactional = &transactional, &other
	}
	return r.sparkEntry(record)
}

// sparkEntry quarantines what a bounce rule made and denylists everything else. Suppressed for
// transactional mail is suppressed for everything: no mailbox refuses its receipts and wants our news.
func (r *fileReader) sparkEntry(s sparkRecord) (e Entry, text string, err error) {
	scope, err := r.sparkScope(&s)
	if err != nil {
		return e, "", err
	}
	if e, err = r.start(s.Recipient, scope); err != nil {
		return e, "", err
	}
	switch e.Status = Denylisted; {
	case strings.EqualFold(s.Source, sparkBounce):
		e.Status, e.Origin = Quarantined, FromBounce
	case strings.EqualFold(s.Source, sparkComplaint):
		e.Origin = FromComplaint
	case strings.EqualFold(s.Source, sparkListUnsubscribe), strings.EqualFold(s.Source, sparkLinkUnsubscribe):
		e.Origin = FromUnsubscribe
	}
	if s.Updated == "" {
		s.Updated = s.Created
	}
	if e.Updated, err = r.time(s.Updated); err != nil {
		return e, "", err
	}
	if e.Created, err = r.time(s.Created); err != nil {
		return e, "", err
	}
	e.Comment = oneLine(s.Description, MaxCommentLength)
	e.finish()
	return e, oneLine(s.Description, MaxEvidenceText), nil
}

// sparkScope reads which mail an entry is about.
func (r *fileReader) sparkScope(s *sparkRecord) (Scope, error) {
	scope := r.defaults
	yes := func(flag *bool) bool { return flag != nil && *flag }
	switch kind := strings.ToLower(strings.ReplaceAll(strings.TrimSpace(s.Type), "-", "_")); {
	case kind == sparkTransactional, kind == "" && yes(s.Transactional):
		scope.Class = Everything
	case kind == sparkNonTransactional, kind == "non_transaction", kind == "" && yes(s.NonTransactional):
		scope.Class = Marketing // SparkPost's own guide misspells it, and so do lists made by it
	case kind == "":
		return scope, problemf("says of no mail that it is suppressed; give a type: %s or %s", sparkTransactional, sparkNonTransactional)
	default:
		return scope, problemf("has the type %q; use %s or %s", printable(s.Type), sparkTransactional, sparkNonTransactional)
	}
	if list := strings.ToLower(strings.TrimSpace(s.List)); list != "" {
		scope.List = oneLine(list, maxListID)
	}
	return scope, nil
}

// sparkPairs makes one entry of the two lines that SparkPost has for an address which gets
// neither transactional nor other mail, where they follow each other.
type sparkPairs struct {
	take func(fileLine) error
	held fileLine
	full bool
}

func (p *sparkPairs) add(line fileLine) error {
	if p.full && line.problem == "" && p.held.problem == "" && p.pair(&line) {
		return nil
	}
	err := p.flush()
	p.held, p.full = line, true
	return err
}

// pair keeps the wider of two lines about one address, if they are such a pair.
func (p *sparkPairs) pair(line *fileLine) bool {
	a, b := &p.held.entry, &line.entry
	other := b.Key
	other.Scope.Class = a.Scope.Class
	if a.Scope.Class == b.Scope.Class || a.Key != other || a.Status != b.Status || a.Origin != b.Origin {
		return false
	}
	a.Scope.Class = Everything
	return true
}

func (p *sparkPairs) flush() error {
	if !p.full {
		return nil
	}
	p.full = false
	return p.take(p.held)
}
