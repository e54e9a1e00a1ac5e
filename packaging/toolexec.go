package packaging

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// -trimpath takes the folder of a package out of what the assembler writes, but not
// that of a file it includes from beside it, as gnark-crypto does; so the module
// cache of whoever builds would be in the binaries. The go command lets a program
// stand before its tools (-toolexec): this one, which trims the whole cache.

// ToolexecArg, as the first argument, makes a program that calls [Build] the one
// that stands before the tools: it must then call [Toolexec] with the rest and exit.
const ToolexecArg = "toolexec"

// cacheVariable tells the tools' side where the module cache is.
const cacheVariable = "SIGILD_PACKAGING_MODCACHE"

// Toolexec runs a tool of the go command, args[0], and returns its exit code. The
// assembler trims the module cache as well, and says so in its version, which
// keeps what it makes apart in the build cache.
func Toolexec(args []string) int {
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "toolexec: no tool")
		return 2
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	asm := filepath.Base(args[0]) == "asm"
	version := len(args) == 2 && args[1] == "-V=full"
	var said strings.Builder
	switch {
	case asm && version:
		cmd.Stdout = &said
	case asm:
		trimCache(cmd.Args, os.Getenv(cacheVariable))
	}
	err := cmd.Run()
	if said.Len() > 0 {
		_, e := io.WriteString(os.Stdout, strings.TrimRight(said.String(), "\n")+" trims-module-cache\n")
		err = errors.Join(err, e)
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "toolexec:", err)
		return 1
	}
	return 0
}

// trimCache adds the module cache to what an assembler's -trimpath takes away.
func trimCache(args []string, cache string) {
	for i := 1; i < len(args); i++ {
		if args[i-1] == "-trimpath" && cache != "" {
			args[i] += ";" + cache + "=>"
		}
	}
}
