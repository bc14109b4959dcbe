package learning

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/veredus/veredus/mta/bounce"
	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
)

// QualifyReplyText implements the call. A tag or bounce code becomes a rule for
// exactly this text, first in the operator's file and in force when the call returns; another choice
// replaces the rule that the last one wrote, and the same choice changes nothing. When
// the rule cannot come into force, the file is as it was. Without a tag, the status is
// kept as the operator's word. It may block on disk and on the reload.
func (s *Service) QualifyReplyText(ctx context.Context, req *veredusv1.QualifyReplyTextRequest) (*veredusv1.QualifyReplyTextResponse, error) {
	if err := checkQualify(req); err != nil {
		return nil, err
	}
	id, err := requestOf(veredusv1.RelayService_QualifyReplyText_FullMethodName, req.GetRequestId(), req)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if before, err := s.replay(ctx, id); err != nil || before != nil {
		resp, _ := before.(*veredusv1.QualifyReplyTextResponse)
		return resp, err
	}
	text, err := s.textOf(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	resp := &veredusv1.QualifyReplyTextResponse{}
	status := Status(req.GetStatus())
	if status == 0 {
		c := &choice{text: text, tag: req.GetTag(), code: int(req.GetBounceCode()), provider: req.GetProvider()}
		if err := s.checkProvider(c); err != nil {
			return nil, err
		}
		resp.File = s.o.File()
		if err := s.enforce(ctx, c); err != nil {
			return nil, err
		}
		resp.Rule = strings.Join(c.lines(), "\n") + "\n"
	}
	if text.Status != status {
		if text, err = s.o.Store.SetReplyTextStatus(ctx, text.ID, status); err != nil {
			return nil, notFound(err, req.GetName())
		}
	}
	resp.ReplyText = textView(text, s.o.Bounces())
	s.remember(id, resp)
	return resp, nil
}

// checkQualify judges the request alone.
func checkQualify(req *veredusv1.QualifyReplyTextRequest) error {
	chosen := req.GetTag() != "" || req.GetBounceCode() != 0
	status := req.GetStatus()
	_, known := veredusv1.ReplyTextStatus_name[int32(status)]
	switch {
	case !known:
		return invalid("status", fmt.Sprint(int32(status)), "is no status", "use TO_QUALIFY, KEEP or IGNORE, or give a tag")
	case status != 0 && chosen:
		return invalid("status", status.String(), "is given beside a tag or bounce code", "give one of both")
	case status == 0 && !chosen:
		return invalid("tag", "", "is missing", "give a tag such as mailbox_full, a bounce code, or a status")
	case status != 0 && req.GetProvider() != "":
		return invalid("provider", req.GetProvider(), "is given without a tag", "leave it out: only rules have a provider")
	case req.GetTag() != "" && !slices.Contains(bounce.Tags(), req.GetTag()):
		return invalid("tag", req.GetTag(), "is no tag", "use one of "+strings.Join(bounce.Tags(), ", "))
	case req.GetBounceCode() != 0 && bounce.CodeName(int(req.GetBounceCode())) == "":
		return invalid("bounce_code", fmt.Sprint(req.GetBounceCode()), "is no bounce code", "use one of 1, 10, 20-25, 30, 40, 50-54, 60, 70, 80, 90, 100")
	}
	return nil
}

// checkProvider wants a provider that the rules know or that said the text.
func (s *Service) checkProvider(c *choice) error {
	known := s.o.Bounces().Providers()
	if c.provider == "" || c.provider != other && c.text.Providers[c.provider] > 0 || slices.Contains(known, c.provider) {
		return nil
	}
	return invalid("provider", c.provider, "is not known", "use one of "+strings.Join(known, ", ")+", or leave it out")
}

// enforce writes the rule and puts it into force.
func (s *Service) enforce(ctx context.Context, c *choice) error {
	path := s.o.File()
	if path == "" {
		return ErrNoFile
	}
	old, mode, err := readFile(path)
	if err != nil {
		return fmt.Errorf("bounce rules: %w", err)
	}
	content, err := withRule(old, c)
	if err != nil {
		return err
	}
	if bytes.Equal(content, old) && s.inForce(c) {
		return nil
	}
	if err := replaceFile(path, content, mode); err != nil {
		return fmt.Errorf("%w: %w", ErrFile, err)
	}
	err = s.o.Reload(ctx)
	if err == nil && !s.inForce(c) {
		err = fmt.Errorf("%w: the configuration in force does not read %s", ErrFile, path)
	}
	if err == nil {
		s.o.Log.Info("a reply text is qualified", "rule", c.id(), "tag", c.tag, "code", c.code, "file", path)
		return nil
	}
	s.restore(path, old, mode)
	return err
}

// inForce reports whether the rule decides its text now.
func (s *Service) inForce(c *choice) bool {
	return s.o.Bounces().Qualify(c.input()).Rule == c.id()
}

// restore puts the file back as it was.
func (s *Service) restore(path string, old []byte, mode os.FileMode) {
	err := replaceFile(path, old, mode)
	if old == nil {
		err = os.Remove(path)
	}
	if err != nil {
		s.o.Log.Error("a rule that did not come into force stays in the file", "file", path, "error", err)
	}
}
