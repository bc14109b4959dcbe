package pebblestore

// DeliveryID is the id of a delivery by its number; false when there is none (any more).
func (s *Store) DeliveryID(no uint64) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.delivery(no)
	if err != nil || d == nil {
		return "", false
	}
	return d.ID, true
}
