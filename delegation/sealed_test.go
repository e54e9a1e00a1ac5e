package delegation

import (
	"slices"
	"testing"

	"github.com/sigild/sigild/vault"
)

func TestTheftOf(t *testing.T) {
	group := func(id uint32, devices ...string) (slots []vault.SlotInfo) {
		for _, d := range devices {
			slots = append(slots, vault.SlotInfo{Group: id, Provider: d})
		}
		return slots
	}
	people := vault.SlotInfo{Group: 9, Provider: "recovery", Custodians: []string{"age1"}}
	a, b := group(0, "a"), group(1, "b")
	both := group(2, "a", "b")
	none := [][]string{nil, nil}
	split := [][]string{{"a"}, {"b"}}
	for _, row := range []struct {
		what  string
		slots []vault.SlotInfo
		needs [][]string
		want  []string
	}{
		{"one device", a, none, []string{"a"}},
		{"one device, per use", a, [][]string{{"a"}, {"a"}}, []string{"a"}},
		{"custodians are no device", append(slices.Clone(a), people), none, []string{"a"}},
		{"either opens", append(slices.Clone(a), b...), none, []string{"a", "b"}},
		{"both open", both, none, nil},
		{"both or one", append(slices.Clone(both), a...), none, []string{"a"}},
		{"split shares", a, split, nil},
		{"split shares, either opens", append(slices.Clone(a), b...), split, nil},
		{"one share needs both", a, [][]string{nil, {"a", "b"}}, nil},
		{"another device holds both", a, [][]string{{"b"}, {"b"}}, nil},
		{"no share is here", a, nil, nil},
		{"two groups of one device", append(slices.Clone(a), group(3, "a")...), none, []string{"a"}},
	} {
		if got := TheftOf(row.slots, row.needs, 2); !slices.Equal(got, row.want) {
			t.Errorf("%s: theft of %v yields a quorum, want %v", row.what, got, row.want)
		}
	}
}
