//go:build cgo

package hsm

/*
#cgo linux LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>
*/
import "C"

import (
	"debug/elf"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"unsafe"

	"github.com/sigild/sigild/seal"

	"github.com/miekg/pkcs11"
)

// loadModule loads and initialises the module. It says why it can't, which the
// bindings don't.
func loadModule(path string) (*pkcs11.Ctx, error) {
	if err := checkModuleFile(path); err != nil {
		return nil, err
	}
	if reason := tryLoad(path); reason != "" {
		return nil, newFault(seal.ErrUnavailable, "loading module %s: %s", path, reason)
	}
	mod := pkcs11.New(path)
	if mod == nil {
		return nil, newFault(seal.ErrUnavailable, "loading module %s: it has no C_GetFunctionList; is it a PKCS#11 module?", path)
	}
	if err := mod.Initialize(); err != nil {
		return nil, p11Fault("C_Initialize of "+path, err)
	}
	return mod, nil
}

// checkModuleFile refuses what must not, or can't, be loaded.
func checkModuleFile(path string) error {
	if !filepath.IsAbs(path) {
		return newFault(seal.ErrPolicy, "loading module %s: the path is not absolute", path)
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newFault(seal.ErrUnavailable, "loading module %s: the file does not exist; hint: install the vendor's PKCS#11 module or correct the path", path)
	}
	if err != nil {
		return newFault(seal.ErrUnavailable, "loading module %s: %v", path, err)
	}
	if !info.Mode().IsRegular() {
		return newFault(seal.ErrPolicy, "loading module %s: not a regular file", path)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return newFault(seal.ErrPolicy, "loading module %s: mode %04o lets others write to it", path, info.Mode().Perm())
	}
	lib, err := elf.Open(path)
	if err != nil {
		return newFault(seal.ErrUnavailable, "loading module %s: not an ELF shared object: %v", path, err)
	}
	defer lib.Close()
	self, err := elf.Open("/proc/self/exe")
	if err != nil {
		return newFault(seal.ErrUnavailable, "loading module %s: reading our own ELF header: %v", path, err)
	}
	defer self.Close()
	if lib.Class != self.Class || lib.Machine != self.Machine {
		return newFault(seal.ErrUnavailable, "loading module %s: wrong ELF class: it is %s %s, we are %s %s",
			path, lib.Class, lib.Machine, self.Class, self.Machine)
	}
	if lib.Type != elf.ET_DYN {
		return newFault(seal.ErrUnavailable, "loading module %s: %s is not a shared object", path, lib.Type)
	}
	return nil
}

// tryLoad returns the loader's own words when path can't be loaded, such as the
// name of a library that it needs.
func tryLoad(path string) string {
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	// Not closed: the bindings open the same file next and share it.
	if C.dlopen(p, C.RTLD_LAZY|C.RTLD_LOCAL) != nil {
		return ""
	}
	if msg := C.dlerror(); msg != nil {
		return strconv.QuoteToGraphic(C.GoString(msg))
	}
	return "dlopen failed without a reason"
}

// p11Fault makes a fault of an error of the bindings. call is the C function.
func p11Fault(call string, err error) *fault {
	var code pkcs11.Error
	if !errors.As(err, &code) {
		return newFault(seal.ErrUnavailable, "%s: %v", call, err)
	}
	f := newFault(meaning(call, uint(code)), "%s", call)
	f.code = uint32(code)
	return f
}
