package public

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
)

// Limits of a POST's body. RFC 8058 section 3.2 gives it one pair of 26 octets.
const (
	maxBody  = 64 << 10 // octets
	maxParts = 16       // of a multipart body
	maxValue = 256      // octets of a value that is looked at
)

// Names and value of the pair that asks for the unsubscribe (RFC 8058 section 3.2), and of the
// field that our page's button adds.
const (
	wishName  = "List-Unsubscribe"
	wishValue = "One-Click"
	pageName  = "page"
)

// Errors of wish.
var (
	errNoWish  = errors.New("the body does not say List-Unsubscribe=One-Click")
	errTooLong = fmt.Errorf("the body is longer than %d octets", maxBody)
)

// wish reads a POST's body and answers how the unsubscribe came, for its evidence. A body that does not ask for
// it is an errNoWish: whatever else posts forms must not take anybody off a list.
func wish(w http.ResponseWriter, r *http.Request) (how string, err error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return "", errTooLong
	case err != nil:
		return "", errNoWish
	}
	form, err := fields(r.Header.Get("Content-Type"), body)
	if err != nil {
		return "", errNoWish
	}
	if !strings.EqualFold(strings.TrimSpace(form[wishName]), wishValue) {
		return "", errNoWish
	}
	if _, ours := form[pageName]; ours {
		return "unsubscribe page", nil
	}
	return "one-click POST", nil
}

// fields reads multipart/form-data, which RFC 8058 section 3.2 prefers; any other type is taken
// for application/x-www-form-urlencoded, since not every sender labels what it sends. Only
// the two fields that we know are kept, the first of each.
func fields(contentType string, body []byte) (map[string]string, error) {
	media, params, err := mime.ParseMediaType(contentType)
	if err == nil && media == "multipart/form-data" {
		return parts(body, params["boundary"])
	}
	values, err := url.ParseQuery(strings.TrimSpace(string(body)))
	if err != nil {
		return nil, err
	}
	known := map[string]string{}
	for name, value := range values {
		keep(known, name, value[0])
	}
	return known, nil
}

func parts(body []byte, boundary string) (map[string]string, error) {
	if boundary == "" {
		return nil, errNoWish
	}
	known := map[string]string{}
	reader := multipart.NewReader(bytes.NewReader(body), boundary)
	for range maxParts {
		part, err := reader.NextPart()
		if err == io.EOF {
			return known, nil
		}
		if err != nil {
			return nil, err
		}
		value, err := io.ReadAll(io.LimitReader(part, maxValue))
		if err != nil {
			return nil, err
		}
		keep(known, part.FormName(), string(value))
	}
	return known, nil
}

// keep takes a field that we know, once. Names of header fields are equal in any case.
func keep(known map[string]string, name, value string) {
	for _, ours := range [...]string{wishName, pageName} {
		if _, given := known[ours]; !given && strings.EqualFold(name, ours) {
			known[ours] = value
		}
	}
}
