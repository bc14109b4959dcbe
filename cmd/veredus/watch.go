package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/veredus/veredus/proto/client"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// watch follows feedback.
type watch struct {
	node
	deliveries, tenants, types, destinations, ids []string

	tokenFile, token       string
	oldest, untilEnd, json bool
	limit                  int
	filter                 *veredusv1.FeedbackFilter
	out                    io.Writer
	seen                   int
	remaining              []string // deliveries that have not ended
}

// errWatched ends a watch that has seen what it waited for.
var errWatched = errors.New("seen")

func newWatch() *cobra.Command {
	w := &watch{}
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Follow what happens to messages, as it happens",
		Long: `Follow feedback: one line (or, with --json, one JSON object) for each event.
Without --oldest it begins with what happens from now on.

With --token-file it begins behind the last event that was printed when the same file
was used before, and keeps the file up to date: no event is missed between two runs.

Event types: delivered, bounced, deferred, expired, suppressed, out_of_band_bounce,
complaint, unsubscribed, taken_into_account; started, paused, resumed, cancelled,
finished, warning; path_throttled, path_suspended, path_resumed, path_raised,
path_warm_up, path_overridden, queue_changed, rule_changed; addresses_changed.

With --until-finished the figures of the deliveries follow, and why mail failed at
each provider.`,
		Example: `  veredus watch
  veredus watch --delivery spring --oldest --until-finished
  veredus watch --type bounced --type expired --json --token-file bounces.token >> bounces.jsonl`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return w.run(cmd) },
	}
	w.flags(cmd)
	f := cmd.Flags()
	f.StringSliceVar(&w.deliveries, "delivery", nil, "only of this delivery; may be given several times, as the other filters")
	f.StringSliceVar(&w.tenants, "tenant", nil, "only of this tenant")
	f.StringSliceVar(&w.types, "type", nil, "only of this type, such as bounced")
	f.StringSliceVar(&w.destinations, "destination", nil, "only of this destination, such as google")
	f.StringSliceVar(&w.ids, "recipient-id", nil, "only of this recipient_id of yours")
	f.BoolVar(&w.oldest, "oldest", false, "begin with the oldest event kept")
	f.StringVar(&w.token, "token", "", "begin behind this token")
	f.StringVar(&w.tokenFile, "token-file", "", "file that keeps the token: resume from it, and update it")
	f.BoolVar(&w.untilEnd, "until-finished", false, "end when the deliveries of --delivery have ended")
	f.IntVar(&w.limit, "limit", 0, "end after this many events")
	f.BoolVar(&w.json, "json", false, "print events as JSON, one per line")
	return cmd
}

func (w *watch) run(cmd *cobra.Command) error {
	w.out = cmd.OutOrStdout()
	if err := w.prepare(cmd); err != nil {
		return err
	}
	conn, err := w.dial(cmd)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	connected := false
	follower := client.Follower{
		Client: veredusv1.NewFeedbackServiceClient(conn), Token: w.token, FromNow: !w.oldest, Filter: w.filter,
		Handle: w.handle,
		Record: func(token string) error {
			if w.tokenFile != "" {
				if err := writeFile(w.tokenFile, token+"\n"); err != nil {
					return err
				}
			}
			if connected {
				return nil
			}
			connected = true
			return w.findEnded(cmd.Context(), veredusv1.NewCampaignServiceClient(conn))
		},
	}
	ctx, cancel := context.WithCancelCause(cmd.Context())
	defer cancel(nil)
	follower.Reconnect = func(err error, wait time.Duration) {
		if !connected { // nothing was ever there: say so at once
			cancel(err)
			return
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "the connection broke (%s); trying again in %v\n", status.Convert(err).Message(), wait.Round(time.Millisecond))
	}
	err = follower.Follow(ctx)
	switch {
	case cmd.Context().Err() != nil:
		return nil // how a watch without end ends
	case errors.Is(err, errWatched):
		return w.report(cmd.Context(), veredusv1.NewCampaignServiceClient(conn))
	case status.Code(err) == codes.OutOfRange || status.Code(err) == codes.FailedPrecondition:
		return fmt.Errorf("%s\nBegin anew with --oldest or without a token; what lies between is lost", explainStatus(err))
	}
	return w.explain(err)
}

// report is the figures of the deliveries whose end was waited for.
func (w *watch) report(ctx context.Context, campaigns veredusv1.CampaignServiceClient) error {
	if !w.untilEnd || w.json || len(w.remaining) > 0 {
		return nil
	}
	for _, name := range w.filter.GetDeliveries() {
		d, err := campaigns.GetDelivery(ctx, &veredusv1.GetDeliveryRequest{Name: name})
		if err != nil {
			return w.explain(err)
		}
		printKpis(w.out, d)
	}
	return nil
}

// findEnded looks after deliveries whose end lies before the place where the watch
// begins, or that do not exist: nothing would ever tell. It is called once the stream stands, so
// that an end that comes later is seen on it.
func (w *watch) findEnded(ctx context.Context, campaigns veredusv1.CampaignServiceClient) error {
	if !w.untilEnd {
		return nil
	}
	for _, name := range slices.Clone(w.remaining) {
		d, err := campaigns.GetDelivery(ctx, &veredusv1.GetDeliveryRequest{Name: name})
		if err != nil {
			return err
		}
		if d.GetFinishTime() != nil && (!w.oldest || w.token != "") {
			w.remaining = slices.DeleteFunc(w.remaining, func(n string) bool { return n == name })
		}
	}
	if len(w.remaining) == 0 {
		return errWatched
	}
	return nil
}

// prepare reads flags and the token file.
func (w *watch) prepare(cmd *cobra.Command) error {
	w.filter = &veredusv1.FeedbackFilter{Tenants: w.tenants, Destinations: w.destinations, RecipientIds: w.ids}
	for _, d := range w.deliveries {
		w.filter.Deliveries = append(w.filter.Deliveries, deliveryName(d))
	}
	for _, name := range w.types {
		value, err := enumValue(veredusv1.FeedbackType_value, "FEEDBACK_TYPE_", name)
		if err != nil {
			return usagef(cmd, "--type %w", err)
		}
		w.filter.Types = append(w.filter.Types, veredusv1.FeedbackType(value))
	}
	if w.untilEnd {
		if len(w.deliveries) == 0 {
			return usagef(cmd, "--until-finished needs --delivery")
		}
		w.remaining = slices.Clone(w.filter.GetDeliveries())
		if len(w.types) > 0 { // to see the end at all
			w.filter.Types = append(w.filter.Types, veredusv1.FeedbackType_FEEDBACK_TYPE_FINISHED, veredusv1.FeedbackType_FEEDBACK_TYPE_CANCELLED)
		}
	}
	if w.tokenFile == "" {
		return nil
	}
	if w.token != "" {
		return usagef(cmd, "--token and --token-file both say where to begin; use one")
	}
	data, err := os.ReadFile(w.tokenFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("--token-file: %w", err)
	}
	w.token = strings.TrimSpace(string(data))
	return nil
}

// handle prints a batch; what it printed is what the token behind it stands for.
func (w *watch) handle(_ context.Context, events []*veredusv1.FeedbackEvent, token string) error {
	for _, e := range events {
		if err := w.print(e); err != nil {
			return err
		}
		w.seen++
		if ended(e) {
			w.remaining = slices.DeleteFunc(w.remaining, func(name string) bool { return name == e.GetDelivery() })
		}
	}
	if (w.limit > 0 && w.seen >= w.limit) || (w.untilEnd && len(w.remaining) == 0) {
		if w.tokenFile != "" {
			if err := writeFile(w.tokenFile, token+"\n"); err != nil {
				return err
			}
		}
		return errWatched
	}
	return nil
}

func ended(e *veredusv1.FeedbackEvent) bool {
	return e.GetType() == veredusv1.FeedbackType_FEEDBACK_TYPE_FINISHED || e.GetType() == veredusv1.FeedbackType_FEEDBACK_TYPE_CANCELLED
}

func (w *watch) print(e *veredusv1.FeedbackEvent) error {
	if w.json {
		return printProto(w.out, e)
	}
	_, err := fmt.Fprintln(w.out, eventLine(e, time.Now()))
	return err
}

// eventLine is an event for people.
func eventLine(e *veredusv1.FeedbackEvent, now time.Time) string {
	words := []string{clock(e.GetTime(), now), fmt.Sprintf("%-13s", eventName(e.GetType()))}
	if e.GetMessage() == "" {
		words = append(words, e.GetDelivery())
		if e.GetDelivery() == "" {
			words = append(words, e.GetSource(), e.GetDestination())
		}
		if e.GetCount() > 0 {
			words = append(words, thousands(e.GetCount())+" messages")
		}
		return joinWords(append(words, oneLine(e.GetText())))
	}
	words = append(words, e.GetRecipient(), bracket(e.GetDestination()))
	words = append(words, replyWords(e.GetReplyCode(), e.GetEnhancedCode(), e.GetText()))
	if reason := enumName(e.GetReason().String(), "FAILURE_REASON_"); reason != "" {
		words = append(words, "("+reason+")")
	}
	if e.GetDeliveryUncertain() {
		words = append(words, "(it may have been delivered)")
	}
	if e.GetWillRetry() && e.GetNextAttemptTime().IsValid() {
		words = append(words, "again at "+clock(e.GetNextAttemptTime(), now))
	}
	return joinWords(words)
}

// replyWords is a reply in one line, with its codes once: the text of some replies
// repeats them.
func replyWords(code int32, enhanced, text string) string {
	text = strings.TrimSpace(oneLine(text))
	if code == 0 {
		return text
	}
	codes := joinWords([]string{fmt.Sprint(code), enhanced})
	if strings.HasPrefix(text, codes) {
		return text
	}
	return joinWords([]string{codes, text})
}

// eventName is an event type's name, as --type takes it.
func eventName(t veredusv1.FeedbackType) string {
	return strings.ToLower(strings.TrimPrefix(t.String(), "FEEDBACK_TYPE_"))
}

func bracket(s string) string {
	if s == "" {
		return ""
	}
	return "[" + s + "]"
}

// joinWords joins what is not empty.
func joinWords(words []string) string {
	words = slices.DeleteFunc(words, func(w string) bool { return strings.TrimSpace(w) == "" })
	return strings.TrimRight(strings.Join(words, " "), " ")
}

// enumValue is the number of a name such as "user_unknown" or "User unknown".
func enumValue(values map[string]int32, prefix, name string) (int32, error) {
	key := prefix + strings.ToUpper(strings.NewReplacer(" ", "_", "-", "_").Replace(name))
	if v, ok := values[key]; ok && v != 0 {
		return v, nil
	}
	var known []string
	for k, v := range values {
		if v != 0 {
			known = append(known, strings.ToLower(strings.TrimPrefix(k, prefix)))
		}
	}
	slices.Sort(known)
	return 0, fmt.Errorf("%q is not known; use one of %s", name, strings.Join(known, ", "))
}

// writeFile replaces a small file as one step: a crash leaves the old or the new.
func writeFile(path, content string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
			err = fmt.Errorf("writing %s: %w", path, err)
		}
	}()
	if _, err := f.WriteString(content); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
