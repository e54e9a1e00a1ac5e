package secmem

import (
	"reflect"
	"sync"
	"unsafe"
)

// Scrub zeroes the numbers that x holds: those in the object that x points to, in its
// arrays and slices, and in what it points to in turn. It is for ciphers and hashes of
// the standard library, whose expanded keys and pending blocks can't be cleared
// otherwise and would lie on the heap until something else is put there. x must not be
// used again, and nothing that it points to may belong to anybody else. It reaches
// neither strings, maps, channels nor functions, nor copies on the stack.
func Scrub(x any) {
	if x == nil {
		return
	}
	v := reflect.ValueOf(x)
	if v.Kind() == reflect.Pointer && !v.IsNil() && isFlat(v.Type().Elem()) {
		clear(unsafe.Slice((*byte)(v.UnsafePointer()), v.Type().Elem().Size()))
		return
	}
	scrub(v, 0)
}

// flat remembers for each type whether it is numbers through and through: an object of
// such a type is cleared at once.
var flat sync.Map

func isFlat(t reflect.Type) bool {
	if known, ok := flat.Load(t); ok {
		return known.(bool)
	}
	is := t.Kind() == reflect.Bool || numbers(t)
	if t.Kind() == reflect.Array {
		is = isFlat(t.Elem())
	}
	if t.Kind() == reflect.Struct {
		is = true
		for i := range t.NumField() {
			is = is && isFlat(t.Field(i).Type)
		}
	}
	flat.Store(t, is)
	return is
}

// deepest bounds the walk: what it is for is flat.
const deepest = 8

func scrub(v reflect.Value, depth int) {
	if depth > deepest {
		return
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			scrub(v.Elem(), depth+1)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			scrub(reachable(v.Field(i)), depth+1)
		}
	case reflect.Array, reflect.Slice:
		if numbers(v.Type().Elem()) {
			if v.Len() > 0 && (v.Kind() == reflect.Slice || v.CanAddr()) {
				clearBytes(v)
			}
			return
		}
		for i := range v.Len() {
			scrub(reachable(v.Index(i)), depth+1)
		}
	default:
		if numbers(v.Type()) && v.CanSet() {
			v.SetZero()
		}
	}
}

// reachable makes an unexported field of an addressable struct settable.
func reachable(v reflect.Value) reflect.Value {
	if !v.CanAddr() || v.CanSet() {
		return v
	}
	return reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem()
}

// numbers says whether values of t are plain numbers, or arrays of them.
func numbers(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uint, reflect.Int, reflect.Int32, reflect.Int64:
		return true
	case reflect.Array:
		return numbers(t.Elem())
	}
	return false
}

// clearBytes zeroes a slice to its capacity, or an array.
func clearBytes(v reflect.Value) {
	if v.Kind() == reflect.Slice {
		v = v.Slice(0, v.Cap())
	}
	clear(unsafe.Slice((*byte)(v.Index(0).Addr().UnsafePointer()), uintptr(v.Len())*v.Type().Elem().Size()))
}
