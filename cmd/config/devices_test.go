package config

import (
	"slices"
	"strings"
	"testing"
)

const board = small + "devices: {board: {tpm: {path: /dev/tpmrm0}}, spare: {pkcs11: {module: /m, token_label: spare, pin_file: /p}}}\n"

func TestFurtherDevices(t *testing.T) {
	c, err := Parse([]byte(board + "parts: {server: [provider], delegate: [board, spare]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.DeviceNames(); !slices.Equal(got, []string{"provider", "board", "spare"}) {
		t.Errorf("DeviceNames = %v", got)
	}
	if got := c.Parts.Named(); !slices.Equal(got, []string{"board", "provider", "spare"}) {
		t.Errorf("Named = %v", got)
	}
	for name, want := range map[string]bool{"board": true, "provider": false, "spare": false, "none": false} {
		if got := c.DeviceTPM(name); got != want {
			t.Errorf("DeviceTPM(%s) = %v", name, got)
		}
	}
	if a, b := c.LatchFileOf("provider"), c.LatchFileOf("board"); !strings.HasSuffix(a, "/pin-failed") || !strings.HasSuffix(b, "/pin-failed-board") {
		t.Errorf("latch files %s and %s", a, b)
	}
	if _, err := c.OpenNamed(t.Context(), "board", nil); err == nil || !strings.Contains(err.Error(), "devices.board.tpm.srk_name is not set; hint: copy it from what sigilctl provider list printed") {
		t.Errorf("opening a TPM that is not pinned: %v", err)
	}
	if _, err := c.OpenNamed(t.Context(), "none", nil); err == nil {
		t.Error("opened a device that is not named")
	}
}

func TestDevicesAndPartsThatAreRefused(t *testing.T) {
	for _, row := range []struct{ what, text, want string }{
		{"a device without a kind", small + "devices: {board: {}}\n", "devices.board must name one sealing device"},
		{"a device of two kinds", small + "devices: {board: {tpm: {}, pkcs11: {module: /m, token_label: l, pin_file: /p}}}\n", "devices.board must name one sealing device"},
		{"the main one's name", small + "devices: {provider: {tpm: {}}}\n", `devices: "provider" can't be the name`},
		{"a path for a name", small + "devices: {../x: {tpm: {}}}\n", `devices: "../x" can't be the name`},
		{"five", small + "devices: {a: {tpm: {}}, b: {tpm: {}}, c: {tpm: {}}, d: {tpm: {}}, e: {tpm: {}}}\n", "devices: at most 4"},
		{"a relative path", small + "devices: {board: {tpm: {path: tpm}}}\n", "devices.board.tpm.path must be an absolute path"},
		{"a token without a name", small + "devices: {spare: {pkcs11: {module: /m, pin_file: /p}}}\n", "devices.spare.pkcs11 needs token_label"},
		{"parts of nobody", board + "parts: {server: [tpm]}\n", `parts.server: there is no device "tpm"`},
		{"parts twice", board + "parts: {delegate: [board, board]}\n", "parts.delegate names a device twice"},
		{"parts of three", board + "parts: {recovery: [board, spare, provider]}\n", "parts.recovery: at most two devices"},
		{"parts of a user", board + "parts: {user: [board]}\n", "field user not found"},
	} {
		if _, err := Parse([]byte(row.text)); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", row.what, err, row.want)
		}
	}
}
