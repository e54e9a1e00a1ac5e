package airgap

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
	"strings"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"
	"rsc.io/qr"
)

// QR codes: drawn with half blocks for a terminal or as PNG, read from PNG. A
// resource is drawn in upper case, which fits the code's alphanumeric mode.

// pngMagic begins every PNG file.
var pngMagic = []byte("\x89PNG\r\n\x1a\n")

// The largest picture that is looked at, in bytes and in pixels.
const (
	maxPicture = 16 << 20
	maxPixels  = 16 << 20
)

// quiet is the light border a code needs, in modules.
const quiet = 4

// TerminalQR draws a resource with one character for two modules, one above the
// other, dark on light by escape sequences, so that it reads on any background.
func TerminalQR(resource string) (string, error) {
	c, err := draw(resource)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for y := -quiet; y < c.Size+quiet; y += 2 {
		out.WriteString("\x1b[30;107m") // black on bright white
		for x := -quiet; x < c.Size+quiet; x++ {
			// Black is false outside of the code.
			switch upper, lower := c.Black(x, y), c.Black(x, y+1); {
			case upper && lower:
				out.WriteRune('█')
			case upper:
				out.WriteRune('▀')
			case lower:
				out.WriteRune('▄')
			default:
				out.WriteByte(' ')
			}
		}
		out.WriteString("\x1b[0m\n")
	}
	return out.String(), nil
}

// PictureQR draws a resource as PNG, 8 pixels a module.
func PictureQR(resource string) ([]byte, error) {
	c, err := draw(resource)
	if err != nil {
		return nil, err
	}
	return c.PNG(), nil
}

func draw(resource string) (*qr.Code, error) {
	c, err := qr.Encode(strings.ToUpper(resource), qr.M)
	if err != nil {
		return nil, fmt.Errorf("drawing a QR code of %d characters: %w", len(resource), err)
	}
	return c, nil
}

// ReadQR reads the one QR code in a PNG picture, drawn or photographed. The library
// that looks for it is kept from bringing the caller down.
func ReadQR(picture []byte) (text string, err error) {
	defer func() {
		if p := recover(); p != nil {
			text, err = "", fmt.Errorf("reading a QR code: %w: the picture can't be read", ErrForm)
		}
	}()
	if len(picture) > maxPicture {
		return "", fmt.Errorf("reading a QR code: %w: a picture of %d bytes, at most %d are taken", ErrForm, len(picture), maxPicture)
	}
	size, err := png.DecodeConfig(bytes.NewReader(picture))
	if err != nil || size.Width*size.Height > maxPixels {
		return "", fmt.Errorf("reading a QR code: %w: no PNG picture of at most %d pixels", ErrForm, maxPixels)
	}
	img, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		return "", fmt.Errorf("reading a QR code: %w: %v", ErrForm, err)
	}
	if text, err = find(img); err != nil {
		return "", fmt.Errorf("reading a QR code: %w: there is none in the picture, or it is blurred", ErrForm)
	}
	return text, nil
}

func find(img image.Image) (string, error) {
	b, err := gozxing.NewBinaryBitmapFromImage(img)
	if err != nil {
		return "", err
	}
	harder := map[gozxing.DecodeHintType]any{gozxing.DecodeHintType_TRY_HARDER: true}
	r, err := qrcode.NewQRCodeReader().Decode(b, harder)
	if err != nil {
		// A code that fills the picture has no border to be found by.
		harder[gozxing.DecodeHintType_PURE_BARCODE] = true
		if r, err = qrcode.NewQRCodeReader().Decode(b, harder); err != nil {
			return "", err
		}
	}
	return r.GetText(), nil
}
