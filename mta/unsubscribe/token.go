// Package unsubscribe makes and reads the sealed token of hosted unsubscribe links
// (RFC 8058) and of their mailto twins. It carries whom to take off which list, so it works
// after the message is long gone; it is encrypted and authenticated, so nobody
// can read an address in it or make one.
package unsubscribe

import (
	"errors"

	"github.com/veredus/veredus/mta/returnpath"
)

// ErrInvalid: not a token that a key of ours sealed.
var ErrInvalid = errors.New("not an unsubscribe token of ours")

// Claim is what a token says.
type Claim struct {
	Address  string // at most 254 octets
	Tenant   string
	List     string // List-Id; may be empty
	Delivery string // D of deliveries/D
	Message  returnpath.Ref
}
