/** Who should own what: every fleet settles into equal shares, and no partition moves without need. */
import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { type LeaseView, planLeases } from '../src/policies/lease-plan.ts'
import { KeyQueues } from '../src/runtime/key-queues.ts'

interface World {
  owners: string[]
  wanted: string[]
  vacantLooks: number[]
  moves: number
}

/** One round: every member looks at the same picture, and acts on it one after another. */
function round(world: World, living: readonly string[], order: readonly string[]): boolean {
  const views: LeaseView[] = world.owners.map((owner, partition) => {
    const isVacant = owner === '' || !living.includes(owner)
    world.vacantLooks[partition] = isVacant ? (world.vacantLooks[partition] ?? 0) + 1 : 0
    const vacantLooks = world.vacantLooks[partition] ?? 0
    return { partition, owner, wanted: world.wanted[partition] ?? '', vacantLooks }
  })
  let acted = false
  for (const me of order) {
    const plan = planLeases(me, living, views, new Set())
    for (const partition of plan.take) {
      if (world.owners[partition] !== views[partition]?.owner) continue
      world.owners[partition] = me
      world.wanted[partition] = ''
      world.moves += 1
      acted = true
    }
    for (const partition of plan.ask) {
      if (
        world.wanted[partition] !== views[partition]?.wanted ||
        world.owners[partition] !== views[partition]?.owner
      )
        continue
      world.wanted[partition] = me
      acted = true
    }
    for (const partition of plan.handOver) {
      if (world.owners[partition] !== me) continue
      world.owners[partition] = ''
      acted = true
    }
  }
  return acted
}

function settle(
  world: World,
  living: readonly string[],
  shuffle: (list: readonly string[]) => string[],
): number {
  for (let rounds = 1; rounds <= 60; rounds++) if (!round(world, living, shuffle(living))) return rounds
  throw new Error(`no peace after 60 rounds: ${JSON.stringify(world)}`)
}

const countOf = (world: World, member: string): number =>
  world.owners.filter((owner) => owner === member).length

test('any change of the fleet ends in equal shares, with no more moves than it needs', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 24 }),
      fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1, maxLength: 5 }),
      fc.infiniteStream(fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true })),
      (partitions, sizes, chance) => {
        const draw = (): number => chance.next().value ?? 0
        const shuffle = (list: readonly string[]): string[] =>
          list
            .map((member) => ({ member, at: draw() }))
            .sort((a, b) => a.at - b.at)
            .map(({ member }) => member)
        const world: World = {
          owners: Array.from({ length: partitions }, () => ''),
          wanted: Array.from({ length: partitions }, () => ''),
          vacantLooks: Array.from({ length: partitions }, () => 0),
          moves: 0,
        }
        let fleet: string[] = []
        let born = 0
        for (const size of sizes) {
          fleet = shuffle(fleet).slice(0, size)
          while (fleet.length < size) {
            born += 1
            fleet.push(`w${born}`)
          }
          const fair = Math.floor(partitions / size)
          const orphaned = world.owners.filter((owner) => !fleet.includes(owner)).length
          const surplus = fleet.reduce((sum, member) => sum + Math.max(0, countOf(world, member) - fair), 0)
          world.moves = 0
          settle(world, fleet, shuffle)
          const counts = fleet.map((member) => countOf(world, member))
          expect(counts.reduce((sum, count) => sum + count, 0)).toBe(partitions)
          expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1)
          // Where several reach for the same one, somebody may end with one too many and hand it over.
          expect(world.moves).toBeLessThanOrEqual(orphaned + surplus + 2 * size)
        }
      },
    ),
    { numRuns: 400 },
  )
})

test('a fleet that is even stays as it is', () => {
  const views = ['a', 'b', 'a', 'b'].map((owner, partition) => ({
    partition,
    owner,
    wanted: '',
    vacantLooks: 0,
  }))
  for (const me of ['a', 'b']) {
    expect(planLeases(me, ['a', 'b'], views, new Set())).toEqual({ take: [], ask: [], handOver: [] })
  }
})

test('who asks for what would make things uneven gets nothing', () => {
  const views = ['a', 'b', 'a', 'b'].map((owner, partition) => ({
    ...{ partition, owner, vacantLooks: 0 },
    wanted: partition === 0 ? 'b' : '',
  }))
  expect(planLeases('a', ['a', 'b'], views, new Set()).handOver).toEqual([])
})

test('what was asked for, and will not be granted any more, may be asked for by who has nothing', () => {
  const views = ['a', 'a', 'c', 'd'].map((owner, partition) => ({
    ...{ partition, owner, vacantLooks: 0 },
    // Both asked while they had nothing, and have got one elsewhere since.
    wanted: partition === 0 ? 'c' : partition === 1 ? 'd' : '',
  }))
  const { ask } = planLeases('e', ['a', 'c', 'd', 'e'], views, new Set())
  expect(ask).toHaveLength(1)
  expect([0, 1]).toContain(ask[0] ?? -1)
})

test('commands of a key come one after another, in the order of their entry ids', () => {
  const ids = fc.uniqueArray(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 60 })
  fc.assert(
    fc.property(ids, fc.integer({ min: 1, max: 4 }), (numbers, keys) => {
      const queues = new KeyQueues<{ key: string; entryId: string; n: number }>()
      const items = numbers.map((n) => ({ key: `k${n % keys}`, entryId: `${n}-0`, n }))
      const running = items.filter((item) => queues.add(item))
      expect(new Set(running.map((item) => item.key)).size).toBe(running.length)
      expect(queues.parked).toBe(items.length - running.length)
      for (const first of running) {
        const waited: number[] = []
        for (let next = queues.next(first.key); next !== undefined; next = queues.next(first.key))
          waited.push(next.n)
        expect(waited).toEqual(waited.toSorted((a, b) => a - b))
      }
      expect(queues.parked).toBe(0)
    }),
  )
})
