package inbound

import "bytes"

// maxMails bounds the mails of one mailbox file.
const maxMails = 10000

// Mails returns the mails of a file: the one it is, or those of a mailbox file
// (mbox, RFC 4155), which begins with a From_ line and parts its mails by one
// below a blank line. It is for files of an operator: what came over SMTP is one
// mail whatever it looks like.
func Mails(raw []byte) [][]byte {
	if !isFromLine(raw) {
		return [][]byte{raw}
	}
	var mails [][]byte
	start, blank := 0, false
	for at := 0; at < len(raw); {
		line, next := lineAt(raw, at)
		if at > 0 && blank && isFromLine(raw[at:]) && len(mails) < maxMails-1 {
			mails = append(mails, raw[start:at])
			start = at
		}
		blank = len(bytes.TrimSpace(line)) == 0
		at = next
	}
	return append(mails, raw[start:])
}

// isFromLine reports whether a mail of a mailbox begins here: a From_ line with a
// sender and a time, and a header field below.
func isFromLine(raw []byte) bool {
	if !bytes.HasPrefix(raw, []byte("From ")) {
		return false
	}
	line, next := lineAt(raw, 0)
	below, _ := lineAt(raw, next)
	return bytes.Count(line, []byte(":")) >= 2 && fieldName(below) != ""
}
