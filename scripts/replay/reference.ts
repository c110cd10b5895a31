/**
 * What the views must say, computed directly from the file: no command, no event, no code of Millrace or of its workers.
 *
 * It even reads the dates in its own way (as `Date`s), so that a mistake on the way in can't hide by being made twice.
 */
import { parquetMetadataAsync, parquetRead } from 'hyparquet'
import { compressors } from 'hyparquet-compressors'
import type { ExpectedViews } from '../fleet/view-check.ts'
import { openRecords } from './records.ts'

type ViewFields = { [field: string]: number | number[] }

class Group {
  flights = 0
  minutesLate = 0
  latest = Number.NEGATIVE_INFINITY
  late = 0
  miles = 0
  farthest = 0
  readonly byHour: number[] = Array.from({ length: 24 }, () => 0)

  add(delay: number, distance: number, hour: number): void {
    this.flights++
    this.minutesLate += delay
    this.latest = Math.max(this.latest, delay)
    this.late += delay > 15 ? 1 : 0
    this.miles += distance
    this.farthest = Math.max(this.farthest, distance)
    this.byHour[hour] = (this.byHour[hour] ?? 0) + 1
  }

  fields(): ViewFields {
    return {
      flights: this.flights,
      delaySum: this.minutesLate,
      delayMax: this.latest,
      delayed: this.late,
      delayMean: this.minutesLate / this.flights,
      delayedShare: this.late / this.flights,
    }
  }
}

class Grouping {
  readonly #groups = new Map<string, Group>()

  of(key: string): Group {
    let group = this.#groups.get(key)
    if (group === undefined) {
      group = new Group()
      this.#groups.set(key, group)
    }
    return group
  }

  views(extra: (group: Group) => ViewFields): Map<string, ViewFields> {
    return new Map([...this.#groups].map(([key, group]) => [key, { ...group.fields(), ...extra(group) }]))
  }
}

/** Aggregates the first `limitRows` rows. */
export async function expectedViews(limitRows: number): Promise<ExpectedViews> {
  const [airports, routes, days] = [new Grouping(), new Grouping(), new Grouping()]
  const file = await openRecords()
  const metadata = await parquetMetadataAsync(file)
  let firstRow = 0
  for (const { num_rows } of metadata.row_groups) {
    const rowEnd = firstRow + Number(num_rows)
    const count = Math.min(rowEnd, limitRows) - firstRow
    if (count <= 0) break
    const data: Record<string, ArrayLike<unknown>> = {}
    const onChunk = (chunk: { columnName: string; columnData: ArrayLike<unknown> }): void => {
      data[chunk.columnName] = chunk.columnData
    }
    await parquetRead({ file, metadata, compressors, rowStart: firstRow, rowEnd, onChunk })
    for (let i = 0; i < count; i++) {
      const date = data['date']?.[i] as Date
      const [delay, distance] = [Number(data['delay']?.[i]), Number(data['distance']?.[i])]
      const [origin, destination] = [String(data['origin']?.[i]), String(data['destination']?.[i])]
      const hour = date.getUTCHours()
      airports.of(origin).add(delay, distance, hour)
      routes.of(`${origin}-${destination}`).add(delay, distance, hour)
      days.of(dayText(date)).add(delay, distance, hour)
    }
    firstRow = rowEnd
  }
  return new Map([
    ['flight-airports', airports.views((group) => ({ hours: group.byHour }))],
    ['flight-routes', routes.views((group) => ({ distanceMax: group.farthest }))],
    ['flight-days', days.views((group) => ({ distanceSum: group.miles }))],
  ])
}

function dayText(date: Date): string {
  const two = (value: number): string => String(value).padStart(2, '0')
  return `${date.getUTCFullYear()}-${two(date.getUTCMonth() + 1)}-${two(date.getUTCDate())}`
}
