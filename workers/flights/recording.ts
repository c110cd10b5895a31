/**
 * Flights as they are recorded: one command for each departure, one event for each command, nothing decided in between.
 *
 * The shortest useful worker there is, and the one that `bun run replay` measures: three million real records enter as
 * `flight.record`, and the views beside this file must equal a direct aggregation of the same records.
 */
import { defineBatchHandler, defineCommand, defineEvent, defineStream, done } from 'millrace'
import { z } from 'zod'

/** Two partitions, chosen by origin: all departures of one airport stand in one log. */
export const flights = defineStream({
  name: 'flights',
  partitions: 2,
  retention: { eventsBytesMax: 8 * 1024 ** 3 },
})

const airport = z.string().regex(/^[A-Z0-9]{3,4}$/)

const departure = z.object({
  /** Scheduled departure, local time of the origin, to the minute: `2001-01-31T17:05`. */
  date: z.string().regex(/^\d{4}-[01]\d-[0-3]\dT(?:[01]\d|2[0-3]):[0-5]\d$/),
  /** Minutes late on arrival; negative when early. */
  delay: z.int().min(-10_000).max(10_000),
  /** Miles. */
  distance: z.int().min(0).max(20_000),
  origin: airport,
  destination: airport,
})

export const recordFlight = defineCommand({
  type: 'flight.record',
  stream: flights,
  payload: departure,
  key: (flight) => flight.origin,
})

export const flightRecorded = defineEvent({ type: 'flight.recorded', payload: departure })

export const recordFlights = defineBatchHandler(
  recordFlight,
  (batch) =>
    batch.map((command) => {
      command.emit(flightRecorded, command.payload)
      return done()
    }),
  { batchCountMax: 500 },
)
