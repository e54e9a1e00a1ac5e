package delegation

import (
	"testing"

	"github.com/sigild/sigild/refusal"
)

// End users of one organization are strangers to each other: what is dana's does
// not exist for erin, in the words of what exists for nobody.
func TestEndUsersSeeTheirOwnOnly(t *testing.T) {
	h := newHouse(t, withWallet)
	id, _ := h.delegate("d", solWallet)
	var ceremony string
	for _, c := range h.book.ceremonies {
		ceremony = c.ID
	}
	for name, read := range map[string]func(a Actor, id string) error{
		solWallet: func(a Actor, id string) error { _, err := h.Wallet(a, site.acme, id); return err },
		id:        func(a Actor, id string) error { _, err := h.Delegation(a, site.acme, id); return err },
		ceremony:  func(a Actor, id string) error { _, err := h.Ceremony(a, site.acme, id); return err },
	} {
		if err := read(look(site.acme, site.dana.holder), name); err != nil {
			t.Errorf("%s for its owner: %v", name, err)
		}
		if err := read(look(site.acme, site.root[0]), name); err != nil {
			t.Errorf("%s for a root member: %v", name, err)
		}
		theirs := wantRefusal(t, name, read(look(site.acme, site.erin.holder), name), refusal.NotFound)
		nobodys := wantRefusal(t, name, read(look(site.acme, site.erin.holder), "nothing"), refusal.NotFound)
		if theirs.Message != nobodys.Message {
			t.Errorf("%s: %q for another's, %q for nobody's", name, theirs.Message, nobodys.Message)
		}
	}
	if err := h.Acting(look(site.acme, site.erin.holder)).Member(site.acme); !refusal.Is(err, refusal.QuorumMissing) {
		t.Errorf("an end user lists deliveries: %v", err)
	}
	if err := h.Acting(look(site.acme, site.root[0])).Member(site.acme); err != nil {
		t.Errorf("a root member can't list deliveries: %v", err)
	}
}
