/** What was reached: answers by route, content type and class, and which of those that a run must see it has not seen. */

import type { FuzzCase } from './cases.ts'
import { type AnswerClass, nameOf, ROUTES } from './routes.ts'

export interface Cell {
  readonly route: string
  readonly contentType: string
  readonly answer: AnswerClass
  readonly count: number
}

export class Tally {
  readonly #counts = new Map<string, { cell: Omit<Cell, 'count'>; count: number }>()

  add({ route, contentType }: FuzzCase, answer: AnswerClass): void {
    const cell = { route: nameOf(route), contentType, answer }
    const key = Object.values(cell).join('\n')
    const known = this.#counts.get(key)
    if (known === undefined) this.#counts.set(key, { cell, count: 1 })
    else known.count += 1
  }

  get cells(): Cell[] {
    return [...this.#counts.values()].map(({ cell, count }) => ({ ...cell, count }))
  }

  /** Sentences; none when all was seen. */
  missing(): string[] {
    const seen = this.cells
    const of = (route: string, contentType?: string): Set<AnswerClass> =>
      new Set(
        seen
          .filter(
            (cell) => cell.route === route && (contentType === undefined || cell.contentType === contentType),
          )
          .map(({ answer }) => answer),
      )
    const sentences: string[] = []
    for (const route of ROUTES) {
      const name = nameOf(route)
      const classes = of(name)
      const absent = route.expected.filter((answer) => !classes.has(answer))
      if (absent.length > 0) sentences.push(`${name}: no ${absent.join(', ')}`)
      if (route.takes !== 'command' && route.takes !== 'bulk') continue
      const types = new Set(seen.filter((cell) => cell.route === name).map(({ contentType }) => contentType))
      for (const contentType of types) {
        const answers = of(name, contentType)
        if (contentType === '-' || answers.has('415') || (answers.has('2xx') && answers.has('400'))) continue
        sentences.push(`${name} with ${contentType}: neither refused as a whole, nor both taken and refused`)
      }
    }
    return sentences
  }

  /** One line for each route and content type. */
  lines(): string[] {
    const rows = new Map<string, string[]>()
    const ordered = this.cells.sort((a, b) => a.answer.localeCompare(b.answer))
    for (const { route, contentType, answer, count } of ordered) {
      const row = `${route.padEnd(44)} ${contentType.padEnd(14)}`
      rows.set(row, [...(rows.get(row) ?? []), `${answer} ${count}`])
    }
    return [...rows]
      .sort(([a], [b]) => a.localeCompare(b))
      .map(([row, answers]) => `${row} ${answers.join('  ')}`)
  }
}
