package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/veredus/veredus/integration/world"
)

// controlServer is the world's HTTP face for other processes:
//
//	GET  /config                     addresses and receivers (ControlConfig)
//	GET  /ledger                     the ledger (Snapshot)
//	GET  /messages                   everything accepted, JSON lines (Record)
//	GET  /accepted?recipient=A       {"accepted": copies for that recipient}
//	GET  /accepted?message_id=<M>    {"accepted": 0 or 1}
//	GET  /certificate                the mail exchangers' certificate, PEM
//	POST /txt                        {"name": ..., "value": ...} as World.AddTXT
//	POST /limits                     {receiver: Limits} as World.SetLimits
//	POST /return_to                  {"to": host:port} as World.SetReturnTo
type controlServer struct {
	addr   string
	server *http.Server
	done   chan struct{}
}

// ControlConfig is what GET /config tells.
type ControlConfig struct {
	World     string   `json:"world"`
	DNS       string   `json:"dns"`
	SMTPPort  int      `json:"smtp_port"`
	Receivers []string `json:"receivers"`
	// Limits are those stated now, by receiver.
	Limits map[string]world.Limits `json:"limits"`
	// ReturnTo is where mail that comes back is sent; empty: it waits.
	ReturnTo string `json:"return_to"`
}

// serveControl listens on loopback only: the endpoint knows no callers' names.
func serveControl(w *World) (*controlServer, error) {
	addr, err := net.ResolveTCPAddr("tcp", w.cfg.ControlListen)
	if err != nil {
		return nil, fmt.Errorf("control listen %q: %w", w.cfg.ControlListen, err)
	}
	if !addr.IP.IsLoopback() {
		return nil, fmt.Errorf("control listen %q: not a loopback address; use 127.0.0.1:0 or another port there", w.cfg.ControlListen)
	}
	l, err := net.ListenTCP("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("control listen %q: %w", w.cfg.ControlListen, err)
	}
	c := &controlServer{addr: l.Addr().String(), done: make(chan struct{})}
	c.server = &http.Server{Handler: w.controlRoutes(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	go func() {
		defer close(c.done)
		if err := c.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			w.cfg.Logger.Error("control endpoint", "error", err)
		}
	}()
	return c, nil
}

func (c *controlServer) close() {
	_ = c.server.Close()
	<-c.done
}

func (w *World) controlRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /config", func(rw http.ResponseWriter, _ *http.Request) { writeJSON(rw, w.controlConfig()) })
	mux.HandleFunc("GET /ledger", func(rw http.ResponseWriter, _ *http.Request) { writeJSON(rw, w.Ledger()) })
	mux.HandleFunc("GET /messages", w.getMessages)
	mux.HandleFunc("GET /accepted", w.getAccepted)
	mux.HandleFunc("GET /certificate", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/x-pem-file")
		_, _ = rw.Write(w.certPEM)
	})
	mux.HandleFunc("POST /txt", w.postTXT)
	mux.HandleFunc("POST /limits", w.postLimits)
	mux.HandleFunc("POST /return_to", w.postReturnTo)
	return mux
}

func (w *World) controlConfig() ControlConfig {
	c := ControlConfig{World: w.cfg.World.Name, DNS: w.DNSAddr(), SMTPPort: w.port, Limits: map[string]world.Limits{}, ReturnTo: w.ReturnTo()}
	for _, s := range w.sites {
		c.Receivers = append(c.Receivers, s.name)
		s.mu.Lock()
		c.Limits[s.name] = s.audit.Limits()
		s.mu.Unlock()
	}
	return c
}

func (w *World) getMessages(rw http.ResponseWriter, _ *http.Request) {
	rw.Header().Set("Content-Type", "application/jsonl")
	if err := w.Dump(rw); err != nil {
		// The head is gone by now; a broken body tells the client.
		w.cfg.Logger.Error("dumping the ledger", "error", err)
		panic(http.ErrAbortHandler)
	}
}

func (w *World) getAccepted(rw http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	accepted := 0
	switch {
	case query.Has("recipient"):
		accepted = w.Accepted(query.Get("recipient"))
	case query.Has("message_id"):
		if w.Has(query.Get("message_id")) {
			accepted = 1
		}
	default:
		http.Error(rw, "give recipient= or message_id=", http.StatusBadRequest)
		return
	}
	writeJSON(rw, map[string]int{"accepted": accepted})
}

func (w *World) postTXT(rw http.ResponseWriter, r *http.Request) {
	var record struct{ Name, Value string }
	if !readJSON(rw, r, &record) {
		return
	}
	if err := w.AddTXT(record.Name, record.Value); err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	rw.WriteHeader(http.StatusNoContent)
}

func (w *World) postLimits(rw http.ResponseWriter, r *http.Request) {
	var limits map[string]world.Limits
	if !readJSON(rw, r, &limits) {
		return
	}
	if err := w.SetLimits(limits); err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	rw.WriteHeader(http.StatusNoContent)
}

func (w *World) postReturnTo(rw http.ResponseWriter, r *http.Request) {
	var where struct{ To string }
	if !readJSON(rw, r, &where) {
		return
	}
	if err := w.SetReturnTo(where.To); err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	rw.WriteHeader(http.StatusNoContent)
}

// readJSON decodes a small, strict JSON body, or answers what is wrong with it.
func readJSON(rw http.ResponseWriter, r *http.Request, into any) bool {
	d := json.NewDecoder(http.MaxBytesReader(rw, r.Body, 1<<20))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		http.Error(rw, "body: "+err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

func writeJSON(rw http.ResponseWriter, v any) {
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(v) // the client may have gone
}
