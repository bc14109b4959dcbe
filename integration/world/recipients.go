package world

import (
	"iter"
	"strconv"
	"strings"
)

// Recipient is one generated addressee with variables for templates.
type Recipient struct {
	Address   string `json:"address"`
	FirstName string `json:"first_name"`
	LastName  string `json:"last_name"`
	City      string `json:"city"`
	// Points is a figure to show in a mail, 0 to 9999.
	Points int `json:"points"`
}

// Recipients yields n recipients of the world's domains in proportion to their
// shares: the same ones, in the same order, for the same world, n and seed. No
// address occurs twice, none is magic, and none says what its fate will be. A
// world without shares yields nothing.
func Recipients(w World, n int, seed uint64) iter.Seq[Recipient] {
	places := w.places()
	return func(yield func(Recipient) bool) {
		if len(places) == 0 {
			return
		}
		for i := range n {
			if !yield(recipientAt(places, seed, i)) {
				return
			}
		}
	}
}

// places repeats each domain as often as its share says.
func (w *World) places() []string {
	var places []string
	for _, r := range w.Receivers {
		for _, d := range r.Domains {
			for range min(d.Share, 100_000) {
				places = append(places, d.Name)
			}
		}
	}
	return places
}

// recipientAt makes the i-th recipient. The index in the local part makes it
// unique, as people's numbers do.
func recipientAt(places []string, seed uint64, i int) Recipient {
	h := hashOf(seed, strconv.Itoa(i))
	first := firstNames[h%uint64(len(firstNames))]
	last := lastNames[h>>16%uint64(len(lastNames))]
	r := Recipient{
		FirstName: first, LastName: last,
		City:   cities[h>>32%uint64(len(cities))],
		Points: int(h >> 40 % 10000),
	}
	r.Address = strings.ToLower(ascii(first)+separators[h>>24%3]+ascii(last)) + strconv.Itoa(i) + "@" + places[mix(h)%uint64(len(places))]
	return r
}

var separators = [...]string{".", "_", ""}

// ascii spells a name the way people do in addresses.
func ascii(name string) string { return asciiSpelling.Replace(name) }

var asciiSpelling = strings.NewReplacer("é", "e", "è", "e", "ü", "ue", "ö", "oe", "ø", "o", "ñ", "n", "ç", "c", "á", "a", "í", "i", "ó", "o", "ú", "u", "ã", "a", "ê", "e", "ö", "oe", "Ł", "L", "ł", "l", "'", "", " ", "")

var firstNames = [...]string{
	"Emma", "Liam", "Olivia", "Noah", "Ava", "Lucas", "Mia", "Ethan", "Sophie", "Jürgen", "Léa", "Hugo", "Chloé", "Louis", "Camille",
	"Hannah", "Jonas", "Lena", "Björn", "Ingrid", "Søren", "Freja", "Marek", "Agnieszka", "Łukasz", "Giulia", "Matteo", "Chiara",
	"Sofía", "José", "Lucía", "Begoña", "Inês", "João", "Amélie", "Yuki", "Haruto", "Mei", "Wei", "Priya", "Arjun", "Fatima", "Omar",
	"Aisha", "Kwame", "Zanele", "Grace", "Daniel", "Sarah", "Thomas",
}

var lastNames = [...]string{
	"Smith", "Johnson", "Martin", "Bernard", "Dubois", "Müller", "Schmidt", "Weber", "Hansen", "Nielsen", "Johansson", "Lindström",
	"Kowalski", "Nowak", "Rossi", "Ferrari", "García", "Martínez", "Núñez", "Silva", "Santos", "O'Brien", "Murphy", "Walker",
	"Tanaka", "Sato", "Wang", "Chen", "Sharma", "Patel", "Hassan", "Okafor", "Mensah", "Dlamini", "Novák", "Popescu", "Kovács", "de Vries",
	"Jansen", "Peeters", "Lefèvre",
}

var cities = [...]string{
	"Lyon", "Berlin", "Porto", "Kraków", "Leeds", "Turin", "Seville", "Ghent", "Aarhus", "Graz", "Boston", "Osaka", "Pune", "Accra", "Cork",
}
