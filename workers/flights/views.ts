/**
 * What the flights add up to: for each airport of departure, each route and each day.
 *
 * Every sum is an integer, so the order of the events does not matter and a view is right to the last digit or wrong.
 * Means and shares are kept beside the sums and derived from them whenever these change, in a fold or in a merge.
 */
import { defineProjection, type EventPayload } from 'millrace'
import { flightRecorded, flights } from './recording.ts'

/** A flight that arrives more than this many minutes late counts as delayed. */
const DELAYED_AFTER_MIN = 15
const HOURS = 24

type Flight = EventPayload<typeof flightRecorded>

interface Totals {
  flights: number
  /** Minutes, over all flights; early arrivals count against it. */
  delaySum: number
  delayMax: number
  delayed: number
  delayMean: number
  /** Part of the flights that were delayed, 0 to 1. */
  delayedShare: number
}

interface Airport extends Totals {
  /** Departures by hour of the day, 0 to 23. */
  hours: number[]
}

interface Route extends Totals {
  /** Miles; the longest that was reported. */
  distanceMax: number
}

interface Day extends Totals {
  /** Miles flown. */
  distanceSum: number
}

const nothing = (): Totals => ({
  flights: 0,
  delaySum: 0,
  delayMax: -Infinity,
  delayed: 0,
  delayMean: 0,
  delayedShare: 0,
})

function count(totals: Totals, { delay }: Flight): void {
  totals.flights += 1
  totals.delaySum += delay
  if (delay > totals.delayMax) totals.delayMax = delay
  if (delay > DELAYED_AFTER_MIN) totals.delayed += 1
  derive(totals)
}

function derive(totals: Totals): void {
  totals.delayMean = totals.delaySum / totals.flights
  totals.delayedShare = totals.delayed / totals.flights
}

/** By airport of departure: `SEA`. */
export const flightAirports = defineProjection<Airport>({
  name: 'flight-airports',
  stream: flights,
  initial: () => ({ ...nothing(), hours: new Array<number>(HOURS).fill(0) }),
}).on(
  flightRecorded,
  ({ payload }) => payload.origin,
  (view, { payload }) => {
    count(view, payload)
    const hour = Number(payload.date.slice(11, 13))
    view.hours[hour] = (view.hours[hour] ?? 0) + 1
    return view
  },
)

/** By route: `SEA-PDX`, whose events all stand in the partition of `SEA`. */
export const flightRoutes = defineProjection<Route>({
  name: 'flight-routes',
  stream: flights,
  initial: () => ({ ...nothing(), distanceMax: 0 }),
  partitionKey: (route) => route.slice(0, route.indexOf('-')),
}).on(
  flightRecorded,
  ({ payload }) => `${payload.origin}-${payload.destination}`,
  (view, { payload }) => {
    count(view, payload)
    if (payload.distance > view.distanceMax) view.distanceMax = payload.distance
    return view
  },
)

/** By day: `2001-01-31`. Flights of one day come from every airport, so from every partition: parts are merged on read. */
export const flightDays = defineProjection<Day>({
  name: 'flight-days',
  stream: flights,
  initial: () => ({ ...nothing(), distanceSum: 0 }),
  merge: (a, b) => {
    const day: Day = {
      flights: a.flights + b.flights,
      delaySum: a.delaySum + b.delaySum,
      delayMax: Math.max(a.delayMax, b.delayMax),
      delayed: a.delayed + b.delayed,
      delayMean: 0,
      delayedShare: 0,
      distanceSum: a.distanceSum + b.distanceSum,
    }
    derive(day)
    return day
  },
}).on(
  flightRecorded,
  ({ payload }) => payload.date.slice(0, 10),
  (view, { payload }) => {
    count(view, payload)
    view.distanceSum += payload.distance
    return view
  },
)
