package server

import "context"

// Principal is who makes a call.
type Principal struct {
	// Name is "local": whoever reaches the port may do everything.
	Name string
}

type principalKey struct{}

// PrincipalOf is the principal of a call's context; the zero Principal outside of calls.
func PrincipalOf(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}

// withPrincipal says who calls.
func withPrincipal(ctx context.Context) context.Context {
	return context.WithValue(ctx, principalKey{}, Principal{Name: "local"})
}
