package packaging

import (
	"slices"
	"testing"
)

func TestToolexecTrimsTheModuleCache(t *testing.T) {
	args := []string{"asm", "-p", "x", "-trimpath", "/w=>;/m/x@v1=>x@v1", "-I", "/w", "a.s"}
	want := slices.Clone(args)
	want[4] += ";/m=>"
	trimCache(args, "/m")
	if !slices.Equal(args, want) {
		t.Errorf("got %q, want %q", args, want)
	}
}

func TestToolexecPassesOn(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want int
	}{
		{[]string{"true"}, 0}, {[]string{"sh", "-c", "exit 3"}, 3}, {[]string{"sh", "-c", "kill -9 $$"}, 1},
		{[]string{"/nonexistent/asm", "-V=full"}, 1}, {nil, 2},
	} {
		if got := Toolexec(tc.args); got != tc.want {
			t.Errorf("%q: %d, want %d", tc.args, got, tc.want)
		}
	}
}
