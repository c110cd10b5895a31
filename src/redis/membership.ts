/** How a worker stands in a partition: the group that it reads and settles in, and under which epoch. */
import { GROUP, orderedGroup, type PartitionKeys } from './keys.ts'

export interface Membership {
  readonly keys: PartitionKeys
  readonly group: string
  readonly consumer: string
  /** Of the partition's lease; undefined in a stream without ordering. */
  readonly epoch: number | undefined
}

/** In a stream without ordering: one group for all workers. */
export function sharedMembership(keys: PartitionKeys, consumer: string): Membership {
  return { keys, group: GROUP, consumer, epoch: undefined }
}

/** In an ordered stream: a group for each epoch of the partition's lease. */
export function leasedMembership(keys: PartitionKeys, consumer: string, epoch: number): Membership {
  return { keys, group: orderedGroup(epoch), consumer, epoch }
}
