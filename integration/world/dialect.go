package world

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Situation is an occasion for a reply; the keys of [Receiver.Replies].
type Situation string

// The situations.
const (
	SayBanner         Situation = "banner"
	SayHello          Situation = "hello"
	SaySender         Situation = "sender_ok"
	SayRecipient      Situation = "recipient_ok"
	SayData           Situation = "data"
	SayAccepted       Situation = "accepted"
	SayUnknown        Situation = "unknown"
	SayFull           Situation = "full"
	SayDisabled       Situation = "disabled"
	SayGreylist       Situation = "greylist"
	SayRateLimit      Situation = "ratelimit"
	SayBlock          Situation = "block"
	SaySpam           Situation = "spam"
	SayConnections    Situation = "connections"
	SayConnectionRate Situation = "connection_rate"
	SayPerConnection  Situation = "messages_per_connection"
	SayQuota          Situation = "quota"
	SayPenalty        Situation = "penalty"
	SayUnavailable    Situation = "unavailable"
	SayTLSRequired    Situation = "tls_required"
	SayNoRelay        Situation = "no_relay"
	SayQuit           Situation = "quit"
)

// base is what every dialect says unless it has its own words: Postfix's.
var base = map[Situation]string{
	SayBanner:         "220 {host} ESMTP Postfix",
	SayHello:          "250 {host}",
	SaySender:         "250 2.1.0 Ok",
	SayRecipient:      "250 2.1.5 Ok",
	SayData:           "354 End data with <CR><LF>.<CR><LF>",
	SayAccepted:       "250 2.0.0 Ok: queued as {id}",
	SayUnknown:        "550 5.1.1 <{rcpt}>: Recipient address rejected: User unknown in virtual mailbox table",
	SayFull:           "452 4.2.2 <{rcpt}>: Recipient address rejected: Mailbox is full / over quota",
	SayDisabled:       "550 5.2.1 <{rcpt}>: Recipient address rejected: Account disabled",
	SayGreylist:       "450 4.7.1 <{rcpt}>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help/{domain}.html",
	SayRateLimit:      "450 4.7.1 Error: too much mail from {ip}",
	SayBlock:          "554 5.7.1 Service unavailable; Client host [{ip}] blocked using zen.spamhaus.org; https://www.spamhaus.org/query/ip/{ip}",
	SaySpam:           "554 5.7.1 Message rejected: spam content detected (score 14.2)",
	SayConnections:    "421 4.7.0 {host} Error: too many connections from {ip}",
	SayConnectionRate: "421 4.7.0 {host} Error: connection rate limit exceeded from {ip}, try again later",
	SayPerConnection:  "421 4.7.0 {host} Error: too many messages in this session, closing connection",
	SayQuota:          "450 4.7.1 Error: hourly message quota exceeded for {ip}, try again later",
	SayPenalty:        "421 4.7.0 {host} Error: {ip} is temporarily suspended for exceeding rate limits",
	SayUnavailable:    "421 4.3.2 {host} Service not available, closing transmission channel",
	SayTLSRequired:    "530 5.7.0 Must issue a STARTTLS command first",
	SayNoRelay:        "554 5.7.1 <{rcpt}>: Relay access denied",
	SayQuit:           "221 2.0.0 Bye",
}

// dialects are the words of known providers and servers. The texts follow what
// senders have published of them; addresses and identifiers are filled in.
var dialects = map[string]map[Situation]string{
	"postfix": {},
	"gmail": {
		SayBanner:         "220 mx.google.com ESMTP {id} - gsmtp",
		SayHello:          "250 mx.google.com at your service, [{ip}]",
		SaySender:         "250 2.1.0 OK {id} - gsmtp",
		SayRecipient:      "250 2.1.5 OK {id} - gsmtp",
		SayData:           "354 Go ahead {id} - gsmtp",
		SayAccepted:       "250 2.0.0 OK {id} - gsmtp",
		SayUnknown:        "550 5.1.1 The email account that you tried to reach does not exist. Please try\ndouble-checking the recipient's email address for typos or\nunnecessary spaces. For more information, go to\nhttps://support.google.com/mail/?p=NoSuchUser {id} - gsmtp",
		SayFull:           "452 4.2.2 The recipient's inbox is out of storage space. Please direct the\nrecipient to https://support.google.com/mail/?p=OverQuotaTemp {id} - gsmtp",
		SayDisabled:       "550 5.2.1 The email account that you tried to reach is inactive. For more\ninformation, go to https://support.google.com/mail/?p=DisabledUser {id} - gsmtp",
		SayGreylist:       "451 4.7.1 Greylisted, please try again in 5 minutes. {id} - gsmtp",
		SayRateLimit:      "421 4.7.28 Gmail has detected an unusual rate of unsolicited mail originating\nfrom your IP address [{ip}]. To protect our users from spam, mail sent\nfrom your IP address has been temporarily rate limited. For more\ninformation, go to https://support.google.com/mail/?p=UnsolicitedRateLimitError {id} - gsmtp",
		SayBlock:          "550 5.7.1 [{ip}] Our system has detected that this message is likely\nunsolicited mail. To reduce the amount of spam sent to Gmail, this IP\naddress has been blocked using Spamhaus (zen.spamhaus.org). {id} - gsmtp",
		SaySpam:           "554 5.7.1 Gmail has detected that this message is likely unsolicited mail.\nTo reduce the amount of spam sent to Gmail, this message has been\nblocked because of its spam content. For more information, go to\nhttps://support.google.com/mail/?p=UnsolicitedMessageError {id} - gsmtp",
		SayConnections:    "421 4.7.0 [{ip}] Too many concurrent connections open from your IP address; try again later. {id} - gsmtp",
		SayConnectionRate: "421 4.7.0 [{ip}] Connection rate limit exceeded, try again later. {id} - gsmtp",
		SayPerConnection:  "421 4.7.0 Too many messages on this connection, closing. {id} - gsmtp",
		SayQuota:          "421 4.7.28 [{ip}] Hourly sending limit for your IP address reached; mail has been temporarily rate limited. {id} - gsmtp",
		SayPenalty:        "421 4.7.28 Gmail has detected an unusual rate of unsolicited mail originating\nfrom your IP address [{ip}]. Mail from it is temporarily rate limited. {id} - gsmtp",
		SayUnavailable:    "421 4.3.0 Temporary System Problem. Try again later. {id} - gsmtp",
		SayTLSRequired:    "530 5.7.0 Must issue a STARTTLS command first. {id} - gsmtp",
		SayNoRelay:        "550 5.7.1 Relaying denied. {id} - gsmtp",
		SayQuit:           "221 2.0.0 closing connection {id} - gsmtp",
	},
	"yahoo": {
		SayBanner:         "220 {host} ESMTP ready",
		SaySender:         "250 2.1.0 sender <{from}> ok",
		SayRecipient:      "250 2.1.5 recipient <{rcpt}> ok",
		SayData:           "354 go ahead",
		SayAccepted:       "250 2.0.0 ok dirdel",
		SayUnknown:        "554 5.1.1 delivery error: dd This user doesn't have a {domain} account ({rcpt}) [-5]",
		SayFull:           "552 5.2.2 delivery error: dd Requested mail action aborted: user {rcpt} is over quota [-9]",
		SayDisabled:       "554 5.2.1 delivery error: dd This mailbox is disabled ({rcpt}) [-7]",
		SayGreylist:       "451 4.7.1 Message temporarily deferred - greylisted, please retry - {id}",
		SayRateLimit:      "421 4.7.0 [TSS04] Messages from {ip} temporarily deferred due to unexpected volume or user complaints - 4.16.55.1; see https://postmaster.yahooinc.com/error-codes",
		SayBlock:          "553 5.7.1 [BL21] Connections will not be accepted from {ip}, because the ip is in Spamhaus's list; see http://postmaster.yahoo.com/550-bl23.html",
		SaySpam:           "554 5.7.1 Message not allowed - [PH01] Email not accepted for policy reasons. Content looks like spam. Please visit https://postmaster.yahooinc.com/error-codes",
		SayConnections:    "421 4.7.0 [TS01] Too many concurrent SMTP connections from {ip}, closing; see https://postmaster.yahooinc.com/error-codes",
		SayConnectionRate: "421 4.7.0 [TSS05] Connections from {ip} temporarily deferred due to their rate; see https://postmaster.yahooinc.com/error-codes",
		SayPerConnection:  "421 4.7.0 Max message per connection reached, closing transmission channel",
		SayQuota:          "421 4.7.0 [TSS04] Messages from {ip} temporarily deferred due to unexpected volume; see https://postmaster.yahooinc.com/error-codes",
		SayPenalty:        "421 4.7.0 [TSS04] Messages from {ip} temporarily deferred due to unexpected volume or user complaints - 4.16.55.1; see https://postmaster.yahooinc.com/error-codes",
		SayUnavailable:    "451 4.3.2 Internal error reading data",
		SayNoRelay:        "554 5.7.1 <{rcpt}>: Relaying denied",
		SayQuit:           "221 2.0.0 Bye",
	},
	"outlook": {
		SayBanner:         "220 {host} Microsoft ESMTP MAIL Service ready",
		SayHello:          "250 {host} Hello [{ip}]",
		SaySender:         "250 2.1.0 Sender OK",
		SayRecipient:      "250 2.1.5 Recipient OK",
		SayData:           "354 Start mail input; end with <CRLF>.<CRLF>",
		SayAccepted:       "250 2.6.0 [InternalId={id}, Hostname={host}] Queued mail for delivery -> 250 2.1.5",
		SayUnknown:        "550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302). [{id}.outlook.com]",
		SayFull:           "552 5.2.2 Mailbox full: the recipient's mailbox is over quota and can't accept messages now. [{id}.outlook.com]",
		SayDisabled:       "550 5.2.1 Mailbox cannot be accessed: the account is disabled. [{id}.outlook.com]",
		SayGreylist:       "451 4.7.1 Greylisted, please try again later. [{id}.outlook.com]",
		SayRateLimit:      "451 4.7.500 Server busy. Please try again later from [{ip}]. (S77719) [{id}.outlook.com]",
		SayBlock:          "550 5.7.1 Unfortunately, messages from [{ip}] weren't sent. Please contact your Internet service provider since part of their network is on our block list (S3140). You can also refer your provider to http://mail.live.com/mail/troubleshooting.aspx#errors. [{id}.outlook.com]",
		SaySpam:           "554 5.7.1 Message rejected as spam by content filtering. [{id}.outlook.com]",
		SayConnections:    "421 4.3.2 The maximum number of concurrent connections from your IP address [{ip}] has exceeded a limit, closing transmission channel (RP-002)",
		SayConnectionRate: "421 4.7.0 RP-001 The mail server IP connecting to Outlook.com server has exceeded the rate limit allowed. Reason for rate limitation is related to IP/domain reputation. [{id}.outlook.com]",
		SayPerConnection:  "421 4.7.0 Maximum number of messages per connection exceeded, closing transmission channel [{id}.outlook.com]",
		SayQuota:          "451 4.7.500 Server busy. Hourly volume for [{ip}] exceeded; please try again later. (S77719)",
		SayPenalty:        "421 4.7.0 RP-001 The mail server IP connecting to Outlook.com server has exceeded the rate limit allowed. [{id}.outlook.com]",
		SayUnavailable:    "451 4.3.2 Temporary server error. Please try again later ATTR17",
		SayTLSRequired:    "530 5.7.0 Must issue a STARTTLS command first",
		SayNoRelay:        "550 5.7.1 Unable to relay recipient in non-accepted domain [{id}.outlook.com]",
		SayQuit:           "221 2.0.0 Service closing transmission channel",
	},
	"exchange": {
		SayBanner:         "220 {host} Microsoft ESMTP MAIL Service ready",
		SayHello:          "250 {host} Hello [{ip}]",
		SaySender:         "250 2.1.0 Sender OK",
		SayRecipient:      "250 2.1.5 Recipient OK",
		SayData:           "354 Start mail input; end with <CRLF>.<CRLF>",
		SayAccepted:       "250 2.6.0 <{id}@{host}> [InternalId={id}] Queued mail for delivery",
		SayUnknown:        "550 5.1.1 RESOLVER.ADR.RecipNotFound; not found ({rcpt})",
		SayFull:           "552 5.2.2 STOREDRV.Deliver; mailbox full. The message can't be delivered because the mailbox is over quota",
		SayDisabled:       "550 5.2.1 RESOLVER.RST.RecipientDisabled; mailbox disabled, not accepting messages",
		SayGreylist:       "451 4.7.1 Greylisted, please try again in 180 seconds",
		SayRateLimit:      "421 4.4.2 Message submission rate for this client has exceeded the configured limit",
		SayBlock:          "550 5.7.1 Service unavailable, Client host [{ip}] blocked using Spamhaus. To request removal from this list see https://www.spamhaus.org/query/ip/{ip}",
		SaySpam:           "554 5.7.1 Message rejected as spam by Content Filtering",
		SayConnections:    "421 4.3.2 The maximum number of concurrent connections has exceeded a limit, closing transmission channel",
		SayConnectionRate: "421 4.3.2 The maximum number of connections per minute from {ip} has exceeded a limit, closing transmission channel",
		SayPerConnection:  "421 4.4.2 Connection dropped: maximum number of messages per session",
		SayQuota:          "421 4.4.2 Message submission rate for this client has exceeded the configured hourly limit",
		SayUnavailable:    "421 4.3.2 Service not active",
		SayNoRelay:        "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain",
		SayQuit:           "221 2.0.0 Service closing transmission channel",
	},
	"apple": {
		SayBanner:    "220 {host} ESMTP Apple iCloud Mail {id}",
		SayUnknown:   "550 5.1.1 <{rcpt}>: user does not exist",
		SayFull:      "552 5.2.2 <{rcpt}>: user is over quota",
		SayDisabled:  "550 5.2.1 <{rcpt}>: inactive email address",
		SayRateLimit: "421 4.7.1 [HM08] Messages from {ip} temporarily deferred, too much mail; see https://support.apple.com/en-us/HT204137",
		SayBlock:     "550 5.7.1 Mail from IP {ip} was rejected due to listing in Spamhaus SBL. For details please see https://www.spamhaus.org/query/ip/{ip}",
		SaySpam:      "554 5.7.1 [CS01] Message rejected due to local policy: spam content. Please visit https://support.apple.com/en-us/HT204137",
		SayNoRelay:   "554 5.7.1 <{rcpt}>: Relay access denied",
		SayQuit:      "221 2.0.0 Bye",
		SayPenalty:   "421 4.7.1 [HM08] Messages from {ip} temporarily deferred; see https://support.apple.com/en-us/HT204137",
	},
	"orange": {
		SayBanner:         "220 {host} ESMTP ABO",
		SaySender:         "250 2.1.0 <{from}> sender ok",
		SayRecipient:      "250 2.1.5 <{rcpt}> recipient ok",
		SayData:           "354 enter mail, end with \".\" on a line by itself",
		SayAccepted:       "250 2.0.0 {id} mail accepted for delivery",
		SayUnknown:        "550 5.1.1 {id} Adresse d au moins un destinataire invalide. Invalid recipient. OFR_416 [416]",
		SayFull:           "552 5.2.2 {id} Boite du destinataire pleine. Recipient overquota. OFR_417 [417]",
		SayDisabled:       "550 5.2.1 {id} Boite du destinataire archivee. Archived recipient: account disabled. OFR_419 [419]",
		SayRateLimit:      "451 4.7.1 {host} Service refuse. Trop de messages, veuillez essayer plus tard. Service refused, too many messages, please try later. OFR_108 [108]",
		SayBlock:          "550 5.7.1 Service refuse. Votre IP {ip} est listee par Spamhaus. Client host blocked using Spamhaus, see https://www.spamhaus.org/query/ip/{ip} OFR_999 [999]",
		SaySpam:           "554 5.7.1 {id} Mail rejete. Mail rejected: spam content. OFR_506 [506]",
		SayConnections:    "421 {host} ME Trop de connexions, veuillez verifier votre configuration. Too many connections, slow down. OFR_004 [104]",
		SayConnectionRate: "421 {host} ME Trop de connexions, veuillez verifier votre configuration. Too many connections, slow down. OFR_005 [105]",
		SayPerConnection:  "421 4.7.1 {host} Trop de messages dans cette session. Too many messages in this session. OFR_109 [109]",
		SayPenalty:        "421 {host} ME Service refuse. Veuillez essayer plus tard. Service refused, please try later. OFR_999 [999]",
		SayTLSRequired:    "530 5.7.0 {host} Connexion TLS obligatoire. Must issue a STARTTLS command first",
	},
	"gmx": {
		SayBanner:         "220 {host} (mxgmx) Nemesis ESMTP Service ready",
		SayHello:          "250 {host} Hello [{ip}]",
		SaySender:         "250 Requested mail action okay, completed",
		SayRecipient:      "250 OK",
		SayData:           "354 Start mail input; end with <CRLF>.<CRLF>",
		SayAccepted:       "250 Requested mail action okay, completed: id={id}",
		SayUnknown:        "550 5.1.1 Requested action not taken: mailbox unavailable\nFor explanation visit https://postmaster.gmx.net/en/error-messages?ip={ip}&c=rnma",
		SayFull:           "552 5.2.2 Requested mail action aborted: exceeded storage allocation\nQuota exceeded. The recipient's mailbox is full.",
		SayDisabled:       "550 5.2.1 Requested action not taken: mailbox disabled, not accepting messages",
		SayRateLimit:      "450 4.7.1 Requested mail action not taken: mailbox unavailable\nMail send limit exceeded. For explanation visit https://postmaster.gmx.net/en/error-messages?ip={ip}&c=sl",
		SayBlock:          "554 5.7.1 Transaction failed\nReject due to policy restrictions. IP address {ip} is listed at Spamhaus. For explanation visit https://postmaster.gmx.net/en/error-messages?ip={ip}&c=bip",
		SaySpam:           "554 5.7.1 Transaction failed\nSpam message rejected because of its content. For explanation visit https://postmaster.gmx.net/en/error-messages?ip={ip}&c=sp",
		SayConnections:    "421 Service closing transmission channel - too many connections from {ip}",
		SayConnectionRate: "421 Service closing transmission channel - too many connections in a short time from {ip}",
		SayPerConnection:  "421 Service closing transmission channel - too many messages in this session",
		SayQuit:           "221 {host} Service closing transmission channel",
	},
	"exim": {
		SayBanner:         "220 {host} ESMTP Exim 4.97",
		SayHello:          "250 {host} Hello client [{ip}]",
		SaySender:         "250 OK",
		SayRecipient:      "250 Accepted",
		SayData:           "354 Enter message, ending with \".\" on a line by itself",
		SayAccepted:       "250 OK id={id}",
		SayUnknown:        "550 5.1.1 <{rcpt}>: No such user here",
		SayFull:           "452 4.2.2 <{rcpt}>: mailbox is full: quota exceeded",
		SayDisabled:       "550 5.2.1 <{rcpt}>: This account has been disabled",
		SayGreylist:       "451 4.7.1 Greylisted, please try again in 5 minutes",
		SayRateLimit:      "451 4.7.1 Sender rate limit exceeded for {ip}: please slow down and retry later",
		SayBlock:          "550 5.7.1 Rejected because {ip} is in a black list at zen.spamhaus.org: https://www.spamhaus.org/query/ip/{ip}",
		SaySpam:           "554 5.7.1 This message was classified as spam (content) and may not be delivered",
		SayConnections:    "421 Too many concurrent SMTP connections from this IP address; please try again later.",
		SayConnectionRate: "421 {host}: connection rate from {ip} too high; please try again later.",
		SayPerConnection:  "421 {host} too many messages in one connection",
		SayUnavailable:    "421 {host}: SMTP service not available; please try again later.",
		SayNoRelay:        "550 5.7.1 relay not permitted",
		SayQuit:           "221 {host} closing connection",
	},
}

// Reply is a reply template: the codes and a text that may hold {host}, {ip},
// {from}, {rcpt}, {domain} and {id}.
type Reply struct {
	Code     int
	Enhanced string
	Text     string
}

// ParseReply reads "code [x.y.z] text"; "\n" in the text separates lines.
func ParseReply(s string) (Reply, error) {
	code, rest, _ := strings.Cut(s, " ")
	n, err := strconv.Atoi(code)
	if err != nil || len(code) != 3 || n < 200 || n > 599 {
		return Reply{}, fmt.Errorf("reply %q: begin with a three-digit reply code from 200 to 599", s)
	}
	if strings.ContainsAny(rest, "\r\x00") {
		return Reply{}, fmt.Errorf("reply %q: only \\n may separate lines", s)
	}
	r := Reply{Code: n, Text: rest}
	first, text, _ := strings.Cut(rest, " ")
	if isEnhanced(first, code[0]) {
		r.Enhanced, r.Text = first, text
	}
	return r, nil
}

// isEnhanced recognises "class.subject.detail" of the reply's own class (RFC
// 3463 section 2, RFC 2034 section 4).
func isEnhanced(s string, class byte) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || parts[0] != string(class) {
		return false
	}
	for _, p := range parts[1:] {
		if n, err := strconv.Atoi(p); err != nil || n < 0 || len(p) > 3 {
			return false
		}
	}
	return true
}

type vocabulary map[Situation]Reply

// newVocabulary layers a receiver's own replies over its dialect over the base.
func newVocabulary(dialect string, own map[Situation]string) (vocabulary, error) {
	if dialect == "" {
		dialect = "postfix"
	}
	words, ok := dialects[dialect]
	if !ok {
		return nil, fmt.Errorf("dialect: there is no %q; use one of %s", dialect, strings.Join(slices.Sorted(maps.Keys(dialects)), ", "))
	}
	v := vocabulary{}
	for _, layer := range []map[Situation]string{base, words, own} {
		for situation, text := range layer {
			if _, known := base[situation]; !known {
				return nil, fmt.Errorf("replies: there is no situation %q", situation)
			}
			reply, err := ParseReply(text)
			if err != nil {
				return nil, fmt.Errorf("replies.%s: %w", situation, err)
			}
			v[situation] = reply
		}
	}
	return v, nil
}
