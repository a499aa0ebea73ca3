/**
 * @file cpu.h
 * @brief How many processors this process may use.
 */
#ifndef TIDE_BASE_CPU_H
#define TIDE_BASE_CPU_H

/**
 * Usable processors: the scheduling affinity, bounded by the CPU quota of the
 * cgroup (v2 and v1, this one's and every ancestor's that is visible), rounded
 * up. At least 1.
 */
int tide_cpu_count(void);

#endif
