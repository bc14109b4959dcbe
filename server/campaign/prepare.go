package campaign

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/veredus/veredus/mta/bounce"
	"github.com/veredus/veredus/mta/compose"
	"github.com/veredus/veredus/mta/unsubscribe"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

const (
	// sampleSize is how many recipients an analysis renders.
	sampleSize = 100
	// maxAnalyses is how often an analysis begins anew because the delivery changed.
	maxAnalyses = 3
	// maxFindings bounds the findings of one kind.
	maxFindings = 100
)

// PrepareDelivery analyses a delivery. Without errors among the findings it becomes Prepared.
func (s *Service) PrepareDelivery(ctx context.Context, r *veredusv1.PrepareDeliveryRequest) (*veredusv1.PrepareDeliveryResponse, error) {
	id, req, err := control(veredusv1.CampaignService_PrepareDelivery_FullMethodName, r)
	if err != nil {
		return nil, err
	}
	release, err := s.turns.take(ctx, id)
	if err != nil {
		return nil, err
	}
	defer release()
	answer := &veredusv1.PrepareDeliveryResponse{}
	if found, err := s.replay(ctx, req, answer); found || err != nil {
		return answer, err
	}
	for try := 1; ; try++ {
		answer, err = s.prepare(ctx, id, req, try == maxAnalyses)
		if !errors.Is(err, errChanged) {
			return answer, named(err, deliveryName(id))
		}
	}
}

// errChanged: the delivery is not what was analysed any more.
var errChanged = errors.New("campaign: the delivery changed meanwhile")

// prepare analyses the delivery as it is, and makes it Prepared if it is so still. The
// last try reports a change as a finding.
func (s *Service) prepare(ctx context.Context, id string, req Request, last bool) (*veredusv1.PrepareDeliveryResponse, error) {
	d, err := s.o.Deliveries.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	if _, err := d.after(CallPrepare); err != nil {
		return nil, err
	}
	sample, err := s.o.Recipients.Sample(ctx, id, sampleSize)
	if err != nil {
		return nil, err
	}
	now := s.now()
	findings, err := s.analyse(ctx, d, sample, now)
	if err != nil {
		return nil, err
	}
	answer := func(d *Delivery) *veredusv1.PrepareDeliveryResponse {
		return &veredusv1.PrepareDeliveryResponse{Delivery: d.API(now), Findings: findings}
	}
	req.Answer = func(d *Delivery) []byte { return remember(answer(d)) }
	changed, err := s.o.Deliveries.Change(ctx, id, req, func(is *Delivery) ([]Event, error) {
		if _, err := is.after(CallPrepare); err != nil {
			return nil, err
		}
		same := is.Content == d.Content && is.Counters.LastIndex == d.Counters.LastIndex && is.Updated.Equal(d.Updated)
		switch {
		case !same && !last:
			return nil, errChanged
		case !same:
			findings = slices.Insert(findings, 0, failure("delivery.changed", "", "content or recipients changed during the analysis; prepare again once uploads have ended"))
		}
		is.settlePrepared(findings, now)
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return answer(changed), nil
}

// settlePrepared gives the delivery the state that the findings allow.
func (d *Delivery) settlePrepared(findings []*veredusv1.Finding, now time.Time) {
	next := Prepared
	if len(errorsOf(findings)) > 0 {
		next = Draft
	}
	if next != d.State {
		d.State, d.Updated = next, now
	}
}

// errorsOf are the findings that block the start.
func errorsOf(findings []*veredusv1.Finding) []*veredusv1.Finding {
	var list []*veredusv1.Finding
	for _, f := range findings {
		if f.GetSeverity() == veredusv1.Severity_SEVERITY_ERROR {
			list = append(list, f)
		}
	}
	return list
}

func failure(code, field, text string) *veredusv1.Finding {
	return &veredusv1.Finding{Severity: veredusv1.Severity_SEVERITY_ERROR, Code: code, Field: field, Description: text}
}

func warning(code, field, text string) *veredusv1.Finding {
	return &veredusv1.Finding{Severity: veredusv1.Severity_SEVERITY_WARNING, Code: code, Field: field, Description: text}
}

func info(code, field, text string, count int64) *veredusv1.Finding {
	return &veredusv1.Finding{Severity: veredusv1.Severity_SEVERITY_INFO, Code: code, Field: field, Description: text, Count: count}
}

// analyse finds everything about a delivery that its client should know before the
// start, errors first. It is bounded by the sample and by the composer's limits.
func (s *Service) analyse(ctx context.Context, d *Delivery, sample []Sampled, now time.Time) ([]*veredusv1.Finding, error) {
	findings := s.lack(d)
	findings = append(findings, s.signing(d)...)
	if s.o.Doctor != nil && d.Spec.GetSender().GetFrom() != "" {
		findings = append(findings, s.o.Doctor(ctx, d)...)
	}
	content, err := s.rendering(ctx, d, sample, now)
	if err != nil {
		return nil, err
	}
	findings = append(findings, content...)
	findings = append(findings, d.lifetime()...)
	findings = append(findings, d.target()...)
	findings = append(findings, s.outlook(ctx, d)...)
	slices.SortStableFunc(findings, func(a, b *veredusv1.Finding) int { return cmp.Compare(b.Severity, a.Severity) })
	return findings, nil
}

// lack is what may be lacking again by the time of the start, since it depends on the
// configuration: the key and the pool.
func (s *Service) lack(d *Delivery) []*veredusv1.Finding {
	var findings []*veredusv1.Finding
	from := d.Spec.GetSender().GetFrom()
	if from == "" {
		findings = append(findings, failure("sender.missing_from", "sender.from", "the sender's address is missing; give one of a domain that has a DKIM key"))
	} else if len(s.o.Keys(senderDomain(from))) == 0 {
		findings = append(findings, noKey(senderDomain(from)))
	}
	if s.o.HasPool != nil && !s.o.HasPool(d.pool()) {
		findings = append(findings, failure("pool.unknown", "pool",
			fmt.Sprintf("the pool %q is not configured; use one of relay.pools", d.pool())))
	}
	if d.hosted() && s.hostedURL() == "" {
		findings = append(findings, failure("unsubscribe.no_public_listener", "unsubscribe.mode", noListener))
	}
	return findings
}

// noListener is what stands against UNSUBSCRIBE_MODE_HOSTED.
const noListener = "hosted unsubscribe needs a public listener, and this node has none; set public.listen and public.url, or use UNSUBSCRIBE_MODE_OWN_URL"

// hostedURL is what hosted links begin with; empty when there can be none.
func (s *Service) hostedURL() string {
	if s.o.HostedURL == nil {
		return ""
	}
	return s.o.HostedURL()
}

func noKey(domain string) *veredusv1.Finding {
	return failure("sender.no_dkim_key", "sender.from",
		fmt.Sprintf("there is no DKIM key for %s; add one to dkim.domains, or send from a domain that has one", domain))
}

// signing warns of weak keys, and of a return path that does not align (RFC 7489
// section 3.1.2): receivers demand it of bulk mail.
func (s *Service) signing(d *Delivery) []*veredusv1.Finding {
	from := d.Spec.GetSender().GetFrom()
	if from == "" {
		return nil
	}
	domain := senderDomain(from)
	var findings []*veredusv1.Finding
	for _, key := range s.o.Keys(domain) {
		for _, text := range key.Warnings {
			findings = append(findings, warning("sender.weak_dkim_key", "sender.from",
				fmt.Sprintf("the DKIM key %s of %s: %s", key.Selector, key.Domain, text)))
		}
	}
	if back := s.bounceDomain(domain); organisation(back) != organisation(domain) {
		findings = append(findings, warning("sender.bounce_domain", "sender.from",
			fmt.Sprintf("the return path's domain %s is outside %s, so that SPF does not align; set bounce_domain to a subdomain of it", back, organisation(domain))))
	}
	return findings
}

// bounceDomain is the domain of the return path; the From domain where none is set.
func (s *Service) bounceDomain(from string) string {
	if b := s.o.BounceDomain(from); b != "" {
		return b
	}
	return from
}

// organisation is the organisational domain of a name, RFC 7489 section 3.2.
func organisation(domain string) string {
	if o, err := publicsuffix.EffectiveTLDPlusOne(domain); err == nil {
		return o
	}
	return domain
}

// sourceFields names the composer's fields as the API does.
var sourceFields = map[string]string{
	"from.name": "sender.display_name", "from.address": "sender.from", "reply_to": "sender.reply_to",
	"subject": "content.subject", "text": "content.text", "html": "content.html", "raw": "content.rfc5322",
	"list_id": "list_id", "feedback_id": "label",
	"unsubscribe": "unsubscribe.mode", "unsubscribe_url": "unsubscribe.url", "unsubscribe_mailto": "unsubscribe.mailto",
}

// apiField is a field of the composer's source as the API names it.
func apiField(field string) string {
	if strings.HasPrefix(field, "headers") {
		return "content." + field
	}
	return sourceFields[field]
}

// compile compiles what a delivery says; errors are findings.
func (d *Delivery) compile() (*compose.Template, []*veredusv1.Finding) {
	t, err := compose.Compile(*d.Source())
	if err == nil {
		return t, nil
	}
	var findings []*veredusv1.Finding
	for _, bad := range fieldErrors(err) {
		code, field := "content.invalid", apiField(bad.Field)
		content := d.Spec.GetContent()
		switch {
		case bad.Field == "from.address" && bad.Value == "":
			continue // sender.missing_from says it
		case bad.Field == "subject" && strings.TrimSpace(content.GetSubject()) == "":
			code = "content.missing_subject"
		case bad.Field == "text" && content.GetText() == "" && content.GetHtml() == "":
			code = "content.missing_body"
		case !strings.HasPrefix(field, "content."):
			code, _, _ = strings.Cut(field, ".")
			code += ".invalid"
		}
		text := FieldViolation{Value: printable(bad.Value, maxShownValue), Problem: bad.Problem, Remedy: bad.Remedy}
		if len(findings) < maxFindings {
			findings = append(findings, failure(code, field, text.Description()))
		}
	}
	return nil, findings
}

// rendering compiles the content and renders it for the sample.
func (s *Service) rendering(ctx context.Context, d *Delivery, sample []Sampled, now time.Time) ([]*veredusv1.Finding, error) {
	t, findings := d.compile()
	if t == nil {
		return append(findings, d.unsubscribing(nil)...), nil
	}
	r := renderings{total: len(sample), missing: map[string]int64{}, failed: map[renderFailure]*failedSample{}}
	for _, one := range sample {
		if err := r.render(ctx, t, s.job(d, one.Address, one.Variables, now), one); err != nil {
			return nil, err
		}
	}
	if len(sample) == 0 { // for what every message has
		probe := renderings{missing: map[string]int64{}, failed: map[renderFailure]*failedSample{}}
		if err := probe.render(ctx, t, s.job(d, previewAddress, nil, now), Sampled{}); err != nil {
			return nil, err
		}
		r.last = probe.last
	}
	return append(r.findings(), d.unsubscribing(r.last)...), nil
}

// job renders a message as it would be sent, but for its Message-ID and its hosted unsubscribe
// links, whose token belongs to nobody.
func (s *Service) job(d *Delivery, to string, variables []byte, now time.Time) compose.Job {
	back := s.bounceDomain(senderDomain(d.Spec.GetSender().GetFrom()))
	job := compose.Job{To: to, Variables: variables, Date: now, MessageID: previewToken + "@" + back}
	if d.hosted() {
		job.Links = s.previewLinks(back)
	}
	return job
}

// previewToken stands where mail that is sent has a token.
const previewToken = "preview"

// previewLinks look like hosted links and do nothing. Without a public listener they lead nowhere: that
// is a finding of its own, and the content shall have its findings still.
func (s *Service) previewLinks(back string) compose.Links {
	base := s.hostedURL()
	if base == "" {
		base = "https://unsubscribe.invalid"
	}
	return compose.Links{
		URL:    base + unsubscribe.Path + previewToken,
		Mailto: "mailto:" + unsubscribe.Mailbox + "@" + back + "?subject=" + previewToken,
	}
}

// renderings gathers what the sample shows.
type renderings struct {
	total   int
	missing map[string]int64
	failed  map[renderFailure]*failedSample
	empty   int64  // without subject
	last    []byte // a rendered message
}

// renderFailure is a way in which rendering fails.
type renderFailure struct {
	field, text string
}

// failedSample is one of them: how often, and the first recipient.
type failedSample struct {
	count int64
	index int64
}

// render renders for one recipient. The error is ctx's.
func (r *renderings) render(ctx context.Context, t *compose.Template, job compose.Job, one Sampled) error {
	out, err := t.Render(ctx, job)
	var bad *compose.RenderError
	if errors.As(err, &bad) {
		key := renderFailure{field: bad.Field, text: printable(bad.Error(), 300)}
		if r.failed[key] == nil {
			r.failed[key] = &failedSample{index: one.Index}
		}
		r.failed[key].count++
		return nil
	}
	if err != nil {
		return err
	}
	if strings.TrimSpace(out.Subject) == "" {
		r.empty++
	}
	for _, name := range out.Missing {
		r.missing[name]++
	}
	r.last = out.Bytes
	return nil
}

// findings names missing variables and failures, those of most recipients first.
func (r *renderings) findings() []*veredusv1.Finding {
	var list []*veredusv1.Finding
	for key, f := range r.failed {
		field := apiField(key.field)
		if field == "" {
			field = "recipients"
		}
		n := failure("content.render_failed", field, fmt.Sprintf("rendering fails for %d of %d recipients sampled, first for index %d: %s", f.count, r.total, f.index, key.text))
		n.Count = f.count
		list = append(list, n)
	}
	for _, name := range slices.Sorted(maps.Keys(r.missing)) {
		n := warning("content.missing_variable", "content", fmt.Sprintf(
			"the variable %q is missing for %d of %d recipients sampled and renders as nothing; send it, or give a default: {{ %s | default: \"...\" }}",
			printable(name, maxShownValue), r.missing[name], r.total, printable(name, maxShownValue)))
		n.Count = r.missing[name]
		list = append(list, n)
	}
	if r.empty > 0 {
		n := warning("content.empty_subject", "content.subject", fmt.Sprintf("the subject is empty for %d of %d recipients sampled; give its variables defaults", r.empty, r.total))
		n.Count = r.empty
		list = append(list, n)
	}
	slices.SortStableFunc(list, func(a, b *veredusv1.Finding) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Description, b.Description))
	})
	return list[:min(len(list), maxFindings)]
}

// unsubscribing warns of bulk mail without the one-click unsubscribe of RFC 8058,
// which Gmail and Yahoo demand, and of a hosted one that does not say which list it
// ends. A complete message may bring its own.
func (d *Delivery) unsubscribing(message []byte) []*veredusv1.Finding {
	switch mode := d.Spec.GetUnsubscribe().GetMode(); {
	case mode == veredusv1.UnsubscribeMode_UNSUBSCRIBE_MODE_OWN_URL, d.hosted() && d.Spec.GetListId() != "":
		return nil
	case d.hosted():
		return []*veredusv1.Finding{warning("unsubscribe.no_list", "list_id",
			"no list is named, so that an unsubscribe ends all marketing mail of the tenant to the address; give a list_id, such as news.example.com")}
	}
	header, _, _ := bytes.Cut(message, []byte("\r\n\r\n"))
	if bytes.Contains(bytes.ToLower(header), []byte("\r\nlist-unsubscribe-post:")) {
		return nil
	}
	return []*veredusv1.Finding{warning("unsubscribe.missing", "unsubscribe.mode",
		"bulk mail has no one-click unsubscribe (RFC 8058), which Gmail and Yahoo demand; set UNSUBSCRIBE_MODE_HOSTED, or UNSUBSCRIBE_MODE_OWN_URL and unsubscribe.url")}
}

// lifetime tells how long the relay will try.
func (d *Delivery) lifetime() []*veredusv1.Finding {
	wanted := d.validity()
	if wanted <= MaxLifetime {
		return nil
	}
	text := fmt.Sprintf("the relay tries for 84 h at most, so that 84 h apply and not %v", wanted)
	if d.Spec.GetValidityPeriod() == nil {
		text = "not set, which means 5 days; the relay tries for 84 h at most, so that 84 h apply"
	}
	return []*veredusv1.Finding{info("validity_period.capped", "validity_period", text, 0)}
}

// target counts who gets mail and who does not.
func (d *Delivery) target() []*veredusv1.Finding {
	c := &d.Counters
	var findings []*veredusv1.Finding
	switch {
	case c.Accepted == 0:
		findings = append(findings, failure("recipients.none", "recipients", "there are no recipients; add some with AddRecipients"))
	case c.ToDeliver() == 0:
		findings = append(findings, warning("recipients.all_ignored", "recipients", "all recipients are ignored: the delivery would finish at once"))
	}
	if c.Accepted > 0 {
		findings = append(findings, info("recipients.accepted", "recipients",
			fmt.Sprintf("%d recipients were accepted, %d of them get mail", c.Accepted, c.ToDeliver()), c.Accepted))
	}
	for _, by := range reasonCounts(c.Ignored) {
		findings = append(findings, info("recipients.ignored", "recipients",
			fmt.Sprintf("%d recipients are ignored: %s", by.GetCount(), bounce.Reason(by.GetReason())), by.GetCount()))
	}
	if c.Rejected > 0 {
		findings = append(findings, info("recipients.rejected", "recipients",
			fmt.Sprintf("%d recipients were refused as malformed; see ListRejectedRecipients", c.Rejected), c.Rejected))
	}
	return findings
}
