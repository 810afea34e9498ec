package scsi

import (
	"testing"

	"odx/target/scsi/reserve"
	"odx/target/scsi/sense"
)

// A new nexus gets POWER ON once; a returning one gets I_T NEXUS LOSS, until
// maxLostNexuses others were lost since.
func TestUnitAttention_ReturningNexus(t *testing.T) {
	f := newPRFixture(t)
	id := f.b.ID
	f.target.Detach(f.b)
	f.b = f.target.Attach(id)
	f.on(f.b, testUnitReady).wantSense(t, sense.KeyUnitAttention, sense.ASCITNexusLossOccurred)
	f.on(f.b, testUnitReady).wantStatus(t, good)
	f.target.Detach(f.b)
	f.target.Detach(f.b) // no second loss
	for i := range maxLostNexuses + 10 {
		other := id
		other.ISID = [6]byte{4: byte(i >> 8), 5: byte(i)}
		other.InitiatorName += "2"
		f.target.Detach(f.target.Attach(other))
	}
	if n := len(f.target.lost.known); n > maxLostNexuses {
		t.Errorf("%d lost nexuses are remembered", n)
	}
	f.on(f.target.Attach(id), testUnitReady).wantSense(t, sense.KeyUnitAttention, sense.ASCPowerOnOrReset)
}

// A reset explains what was pending before it (SAM-5 5.14.1).
func TestUnitAttention_ResetsFirst(t *testing.T) {
	f := newPRFixture(t)
	f.lu.establish(sense.ASCModeParametersChanged, nil)
	f.lu.establish(sense.ASCReservationsReleased, nil)
	f.target.ResetLU(f.b, [8]byte{})
	f.lu.establish(sense.ASCCapacityDataChanged, nil)
	f.lu.establish(sense.ASCITNexusLossOccurred, nil)
	f.wantAttentions(f.a, sense.ASCBusDeviceResetFunction, sense.ASCITNexusLossOccurred,
		sense.ASCModeParametersChanged, sense.ASCReservationsReleased, sense.ASCCapacityDataChanged)
}

// INQUIRY and REPORT LUNS leave unit attentions pending, REQUEST SENSE returns one, any
// other command ends with one and is not run (SAM-5 5.14, SPC-4 r37 6.39).
func TestUnitAttention_ExemptCommands(t *testing.T) {
	events := map[string]struct {
		asc  sense.ASC
		make func(f *prFixture)
	}{
		"capacity":        {sense.ASCCapacityDataChanged, func(f *prFixture) { f.vol.data = append(f.vol.data, make([]byte, 512)...); f.lu.Resized() }},
		"mode parameters": {sense.ASCModeParametersChanged, func(f *prFixture) { f.good(modeSelect6(cachingPage(0)), cachingPage(0)) }},
		"LU reset":        {sense.ASCBusDeviceResetFunction, func(f *prFixture) { f.target.ResetLU(f.a, [8]byte{}) }},
		"tasks cleared":   {sense.ASCCommandsClearedByOther, func(f *prFixture) { f.target.TasksAborted(f.a, [8]byte{}) }},
		"reservation": {sense.ASCReservationsPreempted, func(f *prFixture) {
			f.registerAll()
			f.must(f.a, reserve.Clear, 0, 0x0A, 0)
		}},
		"port groups": {sense.ASCAsymmetricAccessStateChanged, func(f *prFixture) { f.setTPG(f.a, byte(ActiveNonOptimized), 0, 0, 1) }},
		"LUN inventory": {sense.ASCReportedLUNsDataChanged, func(f *prFixture) {
			if err := f.target.AddLU(5, newViewedLU(f.t.(*testing.T), 5)); err != nil {
				f.t.Fatal(err)
			}
		}},
	}
	for name, e := range events {
		t.Run(name, func(t *testing.T) {
			f := newPRFixture(t)
			e.make(f)
			f.on(f.b, inquiryCDB(0, 0, 96)).wantStatus(t, good)
			if e.asc != sense.ASCReportedLUNsDataChanged { // REPORT LUNS itself delivers that condition
				f.on(f.b, reportLUNsCDB(0, 96)).wantStatus(t, good)
			}
			f.on(f.b, testUnitReady).wantSense(t, sense.KeyUnitAttention, e.asc)
			f.on(f.b, testUnitReady).wantStatus(t, good)

			d := f.on(f.c, requestSense).data
			if key, asc := decodeSense(t, d); key != sense.KeyUnitAttention || asc != e.asc {
				t.Errorf("REQUEST SENSE returns %s, %s", key, asc)
			}
			f.on(f.c, testUnitReady).wantStatus(t, good)
		})
	}
}

// A nexus that begins is notified of a logical unit that took the place of another, until
// it has been notified; a returning one is not.
func TestTarget_Replaced(t *testing.T) {
	f := newFixture(t)
	f.target.Replaced(0)
	id := NexusID{InitiatorName: "iqn.2026-11.example.initiator:b", TargetName: f.target.Name(), TargetPortalGroupTag: 1}
	f.target.Detach(f.target.Attach(id)) // without a command
	for _, want := range [][]sense.ASC{
		{sense.ASCITNexusLossOccurred, sense.ASCInquiryDataChanged, sense.ASCReportedLUNsDataChanged},
		{sense.ASCITNexusLossOccurred},
	} {
		n := f.target.Attach(id)
		for _, asc := range want {
			f.on(n, testUnitReady).wantSense(t, sense.KeyUnitAttention, asc)
		}
		f.on(n, testUnitReady).wantStatus(t, StatusGood)
		f.target.Detach(n)
	}
}

// sightingsOf are Sightings with the same earlier record for every nexus.
type sightingsOf struct {
	before [16]byte
	now    map[uint16][16]byte
}

func (s *sightingsOf) Interrupted(NexusID) bool                 { return false }
func (s *sightingsOf) Last(NexusID, uint16) ([16]byte, bool)    { return s.before, true }
func (s *sightingsOf) Saw(_ NexusID, lun uint16, unit [16]byte) { s.now[lun] = unit }

// What a nexus found before the start says whether it is notified, and what it finds now
// is recorded once it has been notified.
func TestTarget_KeepSightings(t *testing.T) {
	for name, before := range map[string][16]byte{"the same": {}, "another": {1}} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.target.Replaced(0) // says nothing of who is known
			s := &sightingsOf{before: before, now: map[uint16][16]byte{}}
			if name == "the same" {
				s.before = f.lu.ID()
			}
			f.target.KeepSightings(s)
			n := f.target.Attach(NexusID{InitiatorName: "iqn.2026-11.example.initiator:b"})
			f.on(n, testUnitReady).wantSense(t, sense.KeyUnitAttention, sense.ASCPowerOnOrReset)
			if name == "another" {
				if len(s.now) > 0 {
					t.Error("recorded before the notification")
				}
				f.on(n, testUnitReady).wantSense(t, sense.KeyUnitAttention, sense.ASCInquiryDataChanged)
				f.on(n, testUnitReady).wantSense(t, sense.KeyUnitAttention, sense.ASCReportedLUNsDataChanged)
			}
			f.on(n, testUnitReady).wantStatus(t, StatusGood)
			if got, ok := s.now[0]; !ok || got != f.lu.ID() {
				t.Errorf("noted: %x", s.now)
			}
		})
	}
}
