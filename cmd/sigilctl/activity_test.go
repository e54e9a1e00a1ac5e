package main_test

import (
	"fmt"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sigild/sigild/client"
)

// scriptWaits has the bot ask for something that waits, and names the activity.
func scriptWaits(ts *testscript.TestScript, args []string) error {
	b, err := readBot(ts.MkAbs("bot.json"))
	if err != nil {
		return err
	}
	c, err := client.Dial(ts.MkAbs("app.sock"))
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = b.payTwice(c.WithAPIKey(b.APIKey), args[0])
	if client.Reason(err) != "APPROVALS_NEEDED" {
		return fmt.Errorf("asking: %v, want APPROVALS_NEEDED", err)
	}
	ts.Setenv("ACTIVITY", client.Details(err)["activity"])
	return nil
}
