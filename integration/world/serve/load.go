package serve

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"

	"github.com/veredus/veredus/integration/world"
)

// maxWorldFile bounds a world file.
const maxWorldFile = 4 << 20

// Load reads a world from YAML (or JSON, which YAML contains). Unknown keys are
// errors with their line; the world is validated.
func Load(r io.Reader) (world.World, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxWorldFile+1))
	if err != nil {
		return world.World{}, fmt.Errorf("reading the world: %w", err)
	}
	if len(data) > maxWorldFile {
		return world.World{}, errors.New("world: longer than 4 MiB")
	}
	return decode(data)
}

// Save writes a world as YAML, in the form that [Load] reads.
func Save(out io.Writer, w world.World) error {
	e := yaml.NewEncoder(out)
	e.SetIndent(2)
	if err := e.Encode(w); err != nil {
		return fmt.Errorf("writing the world: %w", err)
	}
	return e.Close()
}

func decode(data []byte) (world.World, error) {
	var w world.World
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&w); err != nil {
		return world.World{}, fmt.Errorf("world: %w", err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return world.World{}, errors.New("world: more than one document in the file")
	}
	if err := w.Validate(); err != nil {
		return world.World{}, fmt.Errorf("world %q: %w", w.Name, err)
	}
	return w, nil
}
